import Foundation
import MPIO

/// Records LUNs from the processes that hold them: samples in equal steps, and events. A thread for each holder, so that one
/// that does not answer costs the others nothing.
final class Recorder: @unchecked Sendable {
    static let defaultPeriod = Duration.milliseconds(100)
    static let shortestPeriod = Duration.milliseconds(10)
    /// How often it is looked for holders that came.
    private static let searchPeriod = Duration.milliseconds(500)

    private let writer: RecordingWriter
    private let luns: [String]
    private let period: Duration
    private let holders: Holders
    // The task's that runs it.
    private var followers: [HolderFollower] = []

    /// - Parameter luns: names or identities; all where there is none.
    /// - Throws: ``CommandFailure`` where a LUN has no holder, or there is no holder at all, or the file can't be made.
    init(
        _ file: String, luns: [String], period: Duration = defaultPeriod,
        holders: Holders = Holders()
    ) throws {
        let (report, silent) = holders.report(luns: luns)
        let held = report.luns
        for lun in luns where !held.contains(where: { $0.name == lun || $0.identity == lun }) {
            throw holders.nobodyHolds(lun, silent: silent, ", so there is nothing to record")
        }
        guard !held.isEmpty else { throw holders.nobodyHolds(silent: silent, ", so there is nothing to record") }
        let header = RecordingHeader(
            at: Timestamp.format(Date()), everySeconds: period / .seconds(1), luns: luns, command: "mpio \(Version.text)")
        writer = try RecordingWriter(file, header: header)
        self.luns = luns
        self.period = period
        self.holders = holders
    }

    /// Records until the task is cancelled, or for so long; then takes a last sample of each LUN.
    /// - Throws: ``CommandFailure`` where the file can't be written any more.
    @discardableResult
    func run(for length: Duration?) async throws -> RecordingWriter.Counts {
        let end = length.map { ContinuousClock.now + $0 }
        while true {
            follow()
            let left = end.map { $0 - .now } ?? Self.searchPeriod
            guard left > .zero, writer.failure == nil else { break }
            do {
                try await Task.sleep(for: min(left, Self.searchPeriod))
            } catch {
                break
            }
        }
        for follower in followers { follower.askToStop() }
        for follower in followers { follower.waitUntilStopped() }
        if let failure = writer.failure { throw failure }
        return writer.counts
    }

    private func follow() {
        followers.removeAll { $0.hasEnded }
        for client in holders.find(except: Set(followers.map(\.path))).clients {
            followers.append(HolderFollower(client, luns: luns, period: period, writer: writer))
        }
    }
}

/// Takes samples and events from one holder, on a thread of its own, until it is stopped or the holder ends.
private final class HolderFollower: @unchecked Sendable {
    let path: String
    // The thread's.
    private let client: ControlClient
    private let luns: [String]
    private let period: Duration
    private let writer: RecordingWriter
    private var intervals = LatencyIntervals()
    private var names: Set<String> = []
    private var nextEvent: UInt64?
    // Both threads'.
    private let stopping = DispatchSemaphore(value: 0)
    private let finished = DispatchSemaphore(value: 0)
    private let lock = NSLock()
    private var isOver = false

    init(_ client: ControlClient, luns: [String], period: Duration, writer: RecordingWriter) {
        path = client.path
        self.client = client
        self.luns = luns
        self.period = period
        self.writer = writer
        let thread = Thread { self.run() }
        thread.name = "mpio-record"
        thread.start()
    }

    /// The holder ended, or gave no answer.
    var hasEnded: Bool { lock.withLock { isOver } }

    func askToStop() { stopping.signal() }
    /// Returns when the last sample is written. Once.
    func waitUntilStopped() { finished.wait() }

    private func run() {
        defer {
            lock.withLock { isOver = true }
            finished.signal()
        }
        do throws(ControlSocketError) {
            // What happened before is no part of it.
            if case .events(_, let next) = try client.request(.events(after: .max)) { nextEvent = next }
            var due = ContinuousClock.now
            while true {
                try takeSample()
                // A step that was missed is not made up for.
                due = max(due + period, .now)
                let nanoseconds = (due - .now) / .nanoseconds(1)
                if stopping.wait(timeout: .now() + .nanoseconds(Int(nanoseconds))) == .success { break }
            }
            try takeSample()
        } catch {
            // It ended, or is stuck: whoever looks for holders finds it again once it answers.
        }
    }

    private func takeSample() throws(ControlSocketError) {
        guard case .paths(var report) = try client.request(.sample(luns: luns)) else { throw .malformedResponse }
        for index in report.luns.indices { intervals.take(&report.luns[index]) }
        names.formUnion(report.luns.map(\.name))
        if !report.luns.isEmpty { writer.sample(report.luns) }
        guard case .events(let records, let next) = try client.request(.events(after: nextEvent)) else { throw .malformedResponse }
        nextEvent = next
        for record in records where luns.isEmpty || names.contains(record.lun) { writer.event(record) }
    }
}
