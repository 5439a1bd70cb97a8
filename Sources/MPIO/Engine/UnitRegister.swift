import AsyncIO
import SCSI
import Timebase

/// Which unit is open as which LUN, over all reactors of a manager: no unit is open under two names. Each name has a
/// stale-write guard of its own, so that a late write of the one could land over a newer one of the other.
///
/// A disk is entered when its first usable path has told the identity, which is before anybody is given it, and leaves
/// when all its requests are over; with writes of it still feared, the name stays until they are no more. The lanes of one
/// disk have one name, and share the entry. Any thread.
final class UnitRegister: Sendable {
    private struct Entry {
        var lun: String
        var engines: Set<ObjectIdentifier> = []
        /// Until then writes of engines that left may come late. All reactors have one clock.
        var fearedUntil = Instant.zero
    }

    private let lock = Lock()
    nonisolated(unsafe) private var entries: [LogicalUnitIdentity: Entry] = [:]

    /// Enters the disk, or says why it is not: another name has the unit, or had it a moment ago.
    func take(_ identity: LogicalUnitIdentity, for engine: DiskEngine) -> UnitConflict? {
        lock.withLock {
            var entry = entries[identity] ?? Entry(lun: engine.name)
            if entry.lun != engine.name {
                if !entry.engines.isEmpty { return UnitConflict(other: entry.lun, identity: identity, isOpen: true) }
                if entry.fearedUntil > engine.now { return UnitConflict(other: entry.lun, identity: identity, isOpen: false) }
                entry = Entry(lun: engine.name)
            }
            entry.engines.insert(ObjectIdentifier(engine))
            entries[identity] = entry
            return nil
        }
    }

    /// Others may open its unit from now on, or once nothing is feared. Only when none of its requests is under way.
    func giveBack(_ identity: LogicalUnitIdentity, _ engine: DiskEngine, fearedUntil: Instant?) {
        lock.withLock {
            guard var entry = entries[identity], entry.engines.remove(ObjectIdentifier(engine)) != nil else { return }
            if let fearedUntil { entry.fearedUntil = max(entry.fearedUntil, fearedUntil) }
            entries[identity] = entry.engines.isEmpty && entry.fearedUntil <= engine.now ? nil : entry
        }
    }
}

/// Why a disk must not be opened: its unit is another LUN's.
struct UnitConflict {
    /// The other LUN.
    var other: String
    var identity: LogicalUnitIdentity
    /// False: it is closed, and may have left writes behind.
    var isOpen: Bool

    func error(for lun: String) -> PathManagerError {
        isOpen
            ? .sameUnit(lun: lun, openAs: other, identity: identity)
            : .writesFeared(lun: lun, leftBy: other, identity: identity)
    }
}
