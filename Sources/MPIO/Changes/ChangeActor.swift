import Foundation

/// Who changed something.
public struct ChangeActor: Codable, Hashable, Sendable, CustomStringConvertible {
    /// The process that asked.
    public var pid: Int32
    /// The user that it ran as.
    public var uid: UInt32
    /// The command line, as far as it could be read.
    public var command: String

    /// Who asked, as the control socket or the program itself knows it.
    public init(pid: Int32, uid: UInt32, command: String) {
        self.pid = pid
        self.uid = uid
        self.command = command
    }

    /// This process; `command` is what made it change something.
    static func own(_ command: String) -> ChangeActor {
        ChangeActor(pid: getpid(), uid: geteuid(), command: command)
    }

    public var description: String { "\(command), pid \(pid), uid \(uid)" }

    /// What /proc says of a process, on one line of at most 120 characters; empty where it has ended.
    static func command(ofProcess pid: Int32) -> String {
        guard let file = FileHandle(forReadingAtPath: "/proc/\(pid)/cmdline"), let data = try? file.read(upToCount: 4096) else { return "" }
        var words = data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        if let program = words.first { words[0] = String(program.split(separator: "/").last ?? "") }
        let line = HumanText.printable(words.joined(separator: " "))
        return line.count > 120 ? line.prefix(119) + "…" : line
    }
}
