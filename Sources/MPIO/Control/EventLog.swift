import AsyncIO
import Foundation

/// The last events of all disks of a process, numbered in the order in which they happened.
final class EventLog: Sendable {
    static let capacity = 2048

    private let lock = Lock()
    nonisolated(unsafe) private var records: [EventRecord] = []
    nonisolated(unsafe) private var nextSerial: UInt64 = 1

    func append(_ event: DiskEvent) {
        lock.withLock {
            records.append(
                EventRecord(
                    serial: nextSerial, at: Timestamp.format(event.at), lun: event.disk, path: event.path,
                    kind: event.event.kind, message: event.description))
            nextSerial += 1
            if records.count > 2 * Self.capacity { records.removeFirst(records.count - Self.capacity) }
        }
    }

    /// The kept events after `serial` (all where it is nil), and the serial to ask with next.
    func events(after serial: UInt64?) -> ([EventRecord], next: UInt64) {
        lock.withLock {
            let found = records.suffix(Self.capacity).filter { $0.serial > serial ?? 0 }
            return (found, nextSerial - 1)
        }
    }
}
