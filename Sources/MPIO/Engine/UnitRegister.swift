import AsyncIO
import SCSI

/// Which unit is open as which LUN, over all reactors of a manager: no unit is open under two names. Each name has a
/// stale-write guard of its own, so that a late write of the one could land over a newer one of the other.
///
/// A disk is entered when its first usable path has told the identity, which is before anybody is given it, and leaves
/// when all its requests are over. The lanes of one disk have one name, and share the entry. Any thread.
final class UnitRegister: Sendable {
    private struct Entry {
        var lun: String
        var engines: Set<ObjectIdentifier>
    }

    private let lock = Lock()
    nonisolated(unsafe) private var entries: [LogicalUnitIdentity: Entry] = [:]

    /// Enters the disk. Returns the name under which the unit is open already, where that is another one: then it is not entered.
    func take(_ identity: LogicalUnitIdentity, for engine: DiskEngine) -> String? {
        lock.withLock {
            var entry = entries[identity] ?? Entry(lun: engine.name, engines: [])
            guard entry.lun == engine.name else { return entry.lun }
            entry.engines.insert(ObjectIdentifier(engine))
            entries[identity] = entry
            return nil
        }
    }

    /// Others may open its unit from now on; nothing where the disk was not entered. Only when none of its requests is under way.
    func giveBack(_ identity: LogicalUnitIdentity, _ engine: DiskEngine) {
        lock.withLock {
            entries[identity]?.engines.remove(ObjectIdentifier(engine))
            if entries[identity]?.engines.isEmpty == true { entries[identity] = nil }
        }
    }
}

/// That a disk's unit is open under another name.
struct UnitConflict {
    var openAs: String
    var identity: LogicalUnitIdentity
}
