import Foundation
import Multipath
import Testing

@testable import MPIO

struct EventLogTests {
    private func log(_ count: Int) -> EventLog {
        let log = EventLog()
        for number in 0..<count {
            log.append(DiskEvent(at: Date(), disk: "disk \(number + 1)", event: .pathRegained(PathIndex(0)), pathNames: ["a"]))
        }
        return log
    }

    @Test(arguments: [0, 1, EventLog.capacity - 1, EventLog.capacity, EventLog.capacity + 1, 3 * EventLog.capacity - 7])
    func theLastEventsAreKeptInOrder(count: Int) {
        let (records, next) = log(count).events(after: nil)
        #expect(next == UInt64(count))
        let kept = max(count - EventLog.capacity, 0)..<count
        #expect(records.map(\.serial) == kept.map { UInt64($0 + 1) })
        #expect(records.map(\.lun) == kept.map { "disk \($0 + 1)" })
    }

    @Test func whoAsksAgainIsToldOnlyWhatIsNew() {
        let count = EventLog.capacity + 300
        let log = log(count)
        #expect(log.events(after: UInt64(count - 5)).0.map(\.serial) == (count - 4...count).map(UInt64.init))
        #expect(log.events(after: UInt64(count)).0.isEmpty)
        // What is gone is gone: the oldest that is kept follows.
        #expect(log.events(after: 1).0.first?.serial == 301)
    }
}
