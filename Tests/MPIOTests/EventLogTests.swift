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

    /// Programs read how long requests waited and how many were sent again; the words say it too.
    @Test func aFailOverTellsItsPauseAndWhatWasSentAgain() throws {
        let log = EventLog()
        let (a, b) = (PathIndex(0), PathIndex(1))
        for event in [
            MultipathEvent.pathLost(a, PathFailure(.silent), redriven: 3), .failOver(from: a, to: b, redriven: 3, pause: .milliseconds(2010)),
            .failBack(from: b, to: a), .pathRegained(a),
        ] {
            log.append(DiskEvent(at: Date(), disk: "d", event: event, pathNames: ["a", "b"]))
        }
        let records = log.events(after: nil).0
        #expect(records.map(\.redriven) == [3, 3, 0, nil] && records.map(\.pauseMilliseconds) == [nil, 2010, 0, nil])
        #expect(records[1].message == "fail-over from a to b after 2.01s without an answer; 3 requests re-driven")
        let json = try records.map { try #require(JSONSerialization.jsonObject(with: JSONEncoder().encode($0)) as? [String: Any]) }
        #expect(json[1]["pause_ms"] as? Double == 2010 && json[1]["redriven"] as? Int == 3 && json[1]["serial"] as? Int == 2)
        #expect(json[3]["pause_ms"] == nil && json[3]["redriven"] == nil)
        #expect(try JSONDecoder().decode([EventRecord].self, from: JSONEncoder().encode(records)) == records)
        let idle = DiskEvent(at: Date(), disk: "d", event: .failOver(from: a, to: b, redriven: 0, pause: .zero), pathNames: ["a", "b"])
        #expect(idle.description == "fail-over from a to b")
    }
}
