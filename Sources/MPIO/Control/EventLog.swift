import AsyncIO
import Foundation

/// The last events of all disks of a process, numbered in the order in which they happened.
final class EventLog: Sendable {
    static let capacity = 2048

    private let lock = Lock()
    /// Serial n lies at place (n - 1) mod capacity.
    nonisolated(unsafe) private var records: [EventRecord] = []
    nonisolated(unsafe) private var nextSerial: UInt64 = 1

    func append(_ event: DiskEvent) {
        append(lun: event.disk, path: event.path, kind: event.event.kind, message: event.description, by: event.actor, at: event.at,
            lane: event.lane)
    }

    /// - Parameter lun: empty where it is about no LUN.
    func append(lun: String, path: String? = nil, kind: String, message: String, by actor: ChangeActor?, at: Date = Date(), lane: Int? = nil) {
        lock.withLock {
            var record = EventRecord(
                serial: nextSerial, at: Timestamp.format(at), lun: lun, path: path, kind: kind, message: message, by: actor)
            record.lane = lane
            if records.count < Self.capacity {
                records.append(record)
            } else {
                records[Int((nextSerial - 1) % UInt64(Self.capacity))] = record
            }
            nextSerial += 1
        }
    }

    /// The kept events after `serial` (all where it is nil), oldest first, and the serial to ask with next.
    func events(after serial: UInt64?) -> ([EventRecord], next: UInt64) {
        lock.withLock {
            let oldest = records.count < Self.capacity ? 0 : Int((nextSerial - 1) % UInt64(Self.capacity))
            let found = (records[oldest...] + records[..<oldest]).filter { $0.serial > serial ?? 0 }
            return (found, nextSerial - 1)
        }
    }
}
