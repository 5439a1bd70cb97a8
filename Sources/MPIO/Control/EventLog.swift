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
        append(EventRecord(event))
    }

    /// - Parameter lun: empty where it is about no LUN.
    func append(lun: String, path: String? = nil, kind: String, message: String, by actor: ChangeActor?, at: Date = Date()) {
        append(EventRecord(serial: 0, at: Timestamp.format(at), lun: lun, path: path, kind: kind, message: message, by: actor))
    }

    /// The log gives it its serial.
    private func append(_ record: EventRecord) {
        lock.withLock {
            var record = record
            record.serial = nextSerial
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

extension EventRecord {
    /// Without its serial.
    fileprivate init(_ event: DiskEvent) {
        self.init(
            serial: 0, at: Timestamp.format(event.at), lun: event.disk, path: event.path, kind: event.kind, message: event.description,
            by: event.actor)
        lane = event.lane
        redriven = event.event.redriven
        pauseMilliseconds = event.event.pause.map { $0 / .milliseconds(1) }
    }
}
