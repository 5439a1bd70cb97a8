import ArgumentParser
import Foundation
import MPIO

/// What `mpio paths` takes for recording.
struct RecordingOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Record samples and events in a new file, for 'mpio plot'; until interrupted.", valueName: "file"),
        completion: .file(extensions: ["jsonl"]))
    var record: String?

    @Option(help: ArgumentHelp("With --record: how often a sample is taken; 100ms by default.", valueName: "time"))
    var every: TimeSpan?

    @Option(name: .customLong("for"), help: ArgumentHelp("With --record: for how long.", valueName: "time"))
    var length: TimeSpan?

    func validate() throws {
        if record == nil, every != nil || length != nil { throw ValidationError("--every and --for go with --record.") }
        if let every, every.duration < Recorder.shortestPeriod {
            throw ValidationError("--every takes at least \(Units.format(Recorder.shortestPeriod)).")
        }
        if let length, length.duration <= .zero { throw ValidationError("--for takes more than nothing.") }
    }

    /// Nil where nothing is to be recorded.
    func recorder(luns: [String]) throws -> Recorder? {
        guard let record else { return nil }
        return try Recorder(record, luns: luns, period: every?.duration ?? Recorder.defaultPeriod)
    }

    /// Records, and shows what `show` shows meanwhile, until the first of them ends.
    func run(_ recorder: Recorder, beside show: (@Sendable () async throws -> Void)?) async throws {
        guard let record else { return }
        let length = length?.duration
        if show == nil, StandardError.isTerminal { StandardError.write("recording; Ctrl-C ends it\n") }
        let counts = try await withThrowingTaskGroup(of: RecordingWriter.Counts?.self) { group in
            group.addTask { try await recorder.run(for: length) }
            if let show {
                group.addTask {
                    try await show()
                    return nil
                }
            }
            var counts: RecordingWriter.Counts?
            while let ended = try await group.next() {
                counts = ended ?? counts
                group.cancelAll()
            }
            return counts
        }
        guard let counts, show == nil else { return }
        try StandardOutput.write(HumanText.printable("\(record): \(Self.counted(counts.samples, "sample")), \(Self.counted(counts.events, "event"))") + "\n")
    }

    private static func counted(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
}
