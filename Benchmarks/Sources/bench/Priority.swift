import Foundation

/// Before the other programs of the machine, for a machine that is not quiet: caches and memory stay shared.
enum Priority {
    /// A session, and so a scheduling group, of its own, with the highest weight; children inherit both. Says on
    /// standard error what was not allowed, and goes on.
    static func raise() {
        // Fails for the leader of a process group, which has to fork first; a program that make runs is none.
        let hasOwnSession = setsid() >= 0
        if !hasOwnSession { complain("no session of its own: run it by make, or by setsid") }
        errno = 0
        if nice(-20) == -1, errno != 0 { complain("nice: \(String(cString: strerror(errno)))") }
        guard hasOwnSession, access("/proc/self/autogroup", F_OK) == 0 else { return }
        let descriptor = open("/proc/self/autogroup", O_WRONLY)
        defer { if descriptor >= 0 { close(descriptor) } }
        if descriptor < 0 || write(descriptor, "-20", 3) != 3 {
            complain("/proc/self/autogroup: \(String(cString: strerror(errno)))")
        }
    }

    private static func complain(_ words: String) {
        FileHandle.standardError.write(Data("bench: --urgent: \(words)\n".utf8))
    }
}
