import Foundation
public import ISCSI

/// The right to use a set of ISIDs, held while the process lives.
///
/// Two live processes with one initiator name must not share an ISID: each login would throw the other's session
/// out (RFC 7143 section 6.3.5). A process that was killed must leave its ISIDs to the next, whose login reinstates the
/// dead session and so ends its late writes. A file lock gives both: the kernel drops it with the last descriptor,
/// however the process ends.
///
/// Leases are per machine and runtime folder. Hosts that share an initiator name are not kept apart.
public final class ISIDLease: Sendable {
    public let initiatorName: String
    /// The lowest that was free, from 0.
    public let slot: Int
    private let descriptor: Int32

    /// Processes of one initiator name that can hold leases at once.
    public static var slotCount: Int { 256 }

    private init(initiatorName: String, slot: Int, descriptor: Int32) {
        self.initiatorName = initiatorName
        self.slot = slot
        self.descriptor = descriptor
    }

    /// Takes the lowest free slot. The folder is made where it is missing. Returns at once.
    public static func acquire(
        initiatorName: String, directory: String = RuntimeDirectory.defaultPath()
    ) throws(ISIDLeaseError) -> ISIDLease {
        do throws(RuntimeDirectoryError) {
            try RuntimeDirectory.prepare(directory)
        } catch {
            throw .directory(error)
        }
        for slot in 0..<slotCount {
            if let descriptor = try lock(path(initiatorName: initiatorName, slot: slot, directory: directory)) {
                return ISIDLease(initiatorName: initiatorName, slot: slot, descriptor: descriptor)
            }
        }
        throw .allSlotsTaken(initiatorName: initiatorName)
    }

    /// Another process may take the slot from now on. Only after every session with these ISIDs is logged out or closed.
    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// ISIDs by chance, for a process that only looks and can lock no file. Nobody else uses them, in all likelihood, and
    /// nobody inherits them: what such a process leaves behind when it is killed stays until its target ends it.
    static func unleased(initiatorName: String) -> ISIDLease {
        ISIDLease(initiatorName: initiatorName, slot: Int.random(in: slotCount..<(1 << 24)), descriptor: -1)
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
        // The files are never removed, so that a lock is always on the file that others see. For people only:
        let note = Array("\(getpid())\n".utf8)
        if ftruncate(descriptor, 0) == 0 { _ = pwrite(descriptor, note, note.count, 0) }
        return descriptor
    }

    private static func path(initiatorName: String, slot: Int, directory: String) -> String {
        // The name may hold what no file name can, and its hash alone says nothing to people.
        let readable = initiatorName.unicodeScalars.prefix(80).map { scalar in
            scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == "." || scalar == "-") ? String(scalar) : "_"
        }.joined()
        return "\(directory)/\(readable)-\(String(StableHash.of(initiatorName), radix: 16)).isid-\(slot)"
    }

    // MARK: The ISIDs

    /// The ISID of the process's session number `index`: the same in every process that ever holds this slot
    /// under this initiator name. Type "random" of RFC 7143 section 11.12.5; no two slots of a name share one.
    public func isid(forSessionIndex index: UInt16) -> ISID {
        Self.isid(initiatorName: initiatorName, slot: slot, qualifier: index)
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

    static func isid(initiatorName: String, slot: Int, qualifier: UInt16) -> ISID {
        let base = UInt32(truncatingIfNeeded: StableHash.of(initiatorName) >> 20)
        return .random(base &+ UInt32(slot), qualifier: qualifier)
    }
}

public enum ISIDLeaseError: Error, Hashable, Sendable, CustomStringConvertible {
    case directory(RuntimeDirectoryError)
    case file(path: String, code: Int32)
    case allSlotsTaken(initiatorName: String)

    public var description: String {
        switch self {
        case .directory(let error): "\(error)"
        case .file(let path, let code): "the lease file \(path): \(errorText(code))"
        case .allSlotsTaken(let name): "\(ISIDLease.slotCount) processes already use the initiator name \(name)"
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
