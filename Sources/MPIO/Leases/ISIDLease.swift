import Foundation
public import ISCSI

/// The right to use a set of ISIDs, held while the process lives.
///
/// Two live processes with one initiator name must not share an ISID: each login would throw the other's session
/// out (RFC 7143 section 6.3.5). A process that was killed must leave its ISIDs to the next, whose login reinstates the
/// dead session and so ends its late writes. A file lock gives both: the kernel drops it with the last descriptor,
/// however the process ends.
///
/// Leases are per runtime folder, and so are the ISIDs: two processes with different folders (two users, a service and a
/// login session) share none, and neither succeeds the other. Hosts, or containers with a file system each, that share an
/// initiator name and call their folders the same are not kept apart.
public final class ISIDLease: Sendable {
    /// The name under which the process logs in.
    public let initiatorName: String
    /// The lowest that was free, from 0.
    public let slot: Int
    /// By its canonical name, which is the same however a process calls it.
    private let folder: String
    private let descriptor: Int32
    private let lock = NSLock()
    /// LUNs of this lease, by the hash of their names; what the last holder left behind included.
    nonisolated(unsafe) private var noted: Set<UInt64>

    /// Leases of one initiator name that can be held at once.
    public static var slotCount: Int { 256 }

    private init(initiatorName: String, folder: String, slot: Int, descriptor: Int32) {
        self.initiatorName = initiatorName
        self.folder = folder
        self.slot = slot
        self.descriptor = descriptor
        noted = descriptor >= 0 ? Self.notes(in: descriptor) : []
    }

    /// Takes the lowest free slot of the folder. The folder is made where it is missing. Returns at once.
    /// - Throws: ``ISIDLeaseError``.
    public static func acquire(
        initiatorName: String, directory: String = RuntimeDirectory.defaultPath()
    ) throws(ISIDLeaseError) -> ISIDLease {
        let folder: String
        do throws(RuntimeDirectoryError) {
            try RuntimeDirectory.prepare(directory)
            folder = try RuntimeDirectory.canonical(directory)
        } catch {
            throw .directory(error)
        }
        for slot in 0..<slotCount {
            if let descriptor = try lock(path(initiatorName: initiatorName, slot: slot, directory: directory)) {
                let lease = ISIDLease(initiatorName: initiatorName, folder: folder, slot: slot, descriptor: descriptor)
                lease.takeOverNotes()
                return lease
            }
        }
        throw .allSlotsTaken(initiatorName: initiatorName)
    }

    /// Another process may take the slot from now on. Only after every session with these ISIDs is logged out or closed.
    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// ISIDs by chance, for a process that only looks: it locks and writes nothing, ends no session that somebody left, and
    /// takes no slot that a holder's successor should have. Nobody else uses them, in all likelihood (the leases of this
    /// folder never), and nobody inherits them: what such a process leaves when it is killed stays until its target ends it.
    static func unleased(initiatorName: String, directory: String) -> ISIDLease {
        let folder = (try? RuntimeDirectory.canonical(directory)) ?? directory
        return ISIDLease(initiatorName: initiatorName, folder: folder, slot: Int.random(in: slotCount..<(1 << 24)), descriptor: -1)
    }

    /// The locked file, or nil where another process (or another lease of this one) has it.
    private static func lock(_ path: String) throws(ISIDLeaseError) -> Int32? {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw .file(path: path, code: errno) }
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            if code == EINTR { continue }
            close(descriptor)
            if code == EWOULDBLOCK { return nil }
            throw .file(path: path, code: code)
        }
        // The files are never removed, so that a lock is always on the file that others see.
        return descriptor
    }

    private static func path(initiatorName: String, slot: Int, directory: String) -> String {
        // The name may hold what no file name can, and its hash alone says nothing to people.
        let readable = initiatorName.unicodeScalars.prefix(80).map { scalar in
            scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == "." || scalar == "-") ? String(scalar) : "_"
        }.joined()
        return "\(directory)/\(readable)-\(String(StableHash.of(initiatorName), radix: 16)).isid-\(slot)"
    }

    // MARK: The LUNs

    // The file's first line is the process id, for people. The others are LUNs, by the hash of their name: with several
    // reactors, and so several leases, the next process has to know on which a LUN was that was not closed in order.

    /// Whether the sessions of this lease carry the LUN, or did without its having been closed in order, in this process or
    /// in one that held the slot before: then its writes may still be in sessions that this lease's reinstate.
    func isNoted(_ lun: String) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        return noted.contains(StableHash.of(lun))
    }

    /// Remembers, beyond this process's life, that the sessions of this lease carry the LUN.
    func note(_ lun: String) { change { $0.insert(StableHash.of(lun)) } }

    /// Nothing of the LUN is left in any session.
    func erase(_ lun: String) { change { $0.remove(StableHash.of(lun)) } }

    /// What the last holder left stays noted until this one has closed it: it may be killed before it opens the LUN.
    private func takeOverNotes() { change { _ in } }

    private func change(_ body: (inout Set<UInt64>) -> Void) {
        guard descriptor >= 0 else { return }
        lock.lock()
        defer { lock.unlock() }
        body(&noted)
        let text = "\(getpid())\n" + noted.sorted().map { "lun \(String($0, radix: 16))\n" }.joined()
        let bytes = Array(text.utf8)
        // Written before it is cut: whoever kills us in between leaves a LUN too much, never one too few.
        if pwrite(descriptor, bytes, bytes.count, 0) == bytes.count { _ = ftruncate(descriptor, off_t(bytes.count)) }
    }

    private static func notes(in descriptor: Int32) -> Set<UInt64> {
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        guard count > 0 else { return [] }
        let lines = String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
        return Set(lines.compactMap { $0.hasPrefix("lun ") ? UInt64($0.dropFirst(4), radix: 16) : nil })
    }

    // MARK: The ISIDs

    /// The ISID of the process's session number `index`: the same in every process that ever holds this slot
    /// of this folder under this initiator name. Type "random" of RFC 7143 section 11.12.5; no two slots share one, and those
    /// of two folders do so with a chance of 1 to 30,000.
    public func isid(forSessionIndex index: UInt16) -> ISID {
        Self.isid(initiatorName: initiatorName, folder: folder, slot: slot, qualifier: index)
    }

    /// One ISID for each session, all different, each depending as little as possible on the others: a session keeps
    /// its ISID when another is added to the policy file. `keys` name the sessions by what makes them themselves
    /// (target, portal and source address) and are different from each other. At most 65,536.
    public func isids(forSessions keys: [String]) -> [ISID] {
        precondition(keys.count <= 65_536, "more sessions than qualifiers")
        var taken: Set<UInt16> = []
        return keys.map { key in
            var qualifier = UInt16(truncatingIfNeeded: StableHash.of(key) >> 24)
            while !taken.insert(qualifier).inserted { qualifier &+= 1 }
            return isid(forSessionIndex: qualifier)
        }
    }

    static func isid(initiatorName: String, folder: String, slot: Int, qualifier: UInt16) -> ISID {
        // No name has a line's end in it.
        let base = UInt32(truncatingIfNeeded: StableHash.of("\(initiatorName)\n\(folder)") >> 20)
        return .random(base &+ UInt32(slot), qualifier: qualifier)
    }
}

/// Why no ISID could be had.
public enum ISIDLeaseError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The runtime folder can't be used.
    case directory(RuntimeDirectoryError)
    /// A lock file can't be; `code` is an `errno`.
    case file(path: String, code: Int32)
    /// As many leases as there are slots are held under this name in this runtime folder.
    case allSlotsTaken(initiatorName: String)

    public var description: String {
        switch self {
        case .directory(let error): "\(error)"
        case .file(let path, let code): "the lease file \(path): \(errorText(code))"
        case .allSlotsTaken(let name): "all \(ISIDLease.slotCount) ISID leases of the initiator name \(name) are taken; each process takes one for each of its reactors"
        }
    }
}

/// FNV-1a with a final mix: the same in every process and version, which `Hasher` is not.
enum StableHash {
    static func of(_ text: String) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        hash = (hash ^ (hash >> 33)) &* 0xFF51_AFD7_ED55_8CCD
        return hash ^ (hash >> 33)
    }
}
