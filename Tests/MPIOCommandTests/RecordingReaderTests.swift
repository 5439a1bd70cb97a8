import Foundation
import MPIO
import Testing

@testable import MPIOCommand

/// Lines as `mpio paths --record` writes them.
enum RecordingText {
    static let header = #"{"at":"2026-11-21T10:00:00.000Z","command":"mpio","every_s":0.1,"luns":[],"recording":1}"#

    /// `second` seconds after the header, at 1000 s of the monotonic clock and more.
    static func sample(
        _ second: Double, lun: String = "vm-store", pid: Int = 7, _ paths: [(id: String, requests: Int, bytes: Int, p99: Double?)]
    ) -> String {
        var snapshot = LUNSnapshot(name: lun, policy: "round-robin", state: .optimal, holder: .init(pid: Int32(pid), command: "test"))
        snapshot.clockSeconds = 1000 + second
        snapshot.paths = paths.map { path in
            var shown = PathSnapshot(id: path.id, transport: .iscsi, portal: path.id, state: .activeOptimized)
            shown.requests = UInt64(path.requests)
            shown.bytesRead = UInt64(path.bytes)
            if let p99 = path.p99 { shown.intervalLatency = LatencySummary(p50: p99 / 2, p99: p99, max: p99) }
            return shown
        }
        var line = RecordedSample(luns: [snapshot])
        line.at = moment(second)
        line.clockSeconds = 1000 + second
        return json(line)
    }

    static func event(_ second: Double, _ kind: String, lun: String = "vm-store", path: String? = nil, _ message: String = "it happened") -> String {
        json(EventRecord(serial: 1, at: moment(second), lun: lun, path: path, kind: kind, message: message))
    }

    static func moment(_ second: Double) -> String {
        Timestamp.format(Date(timeIntervalSince1970: 1_795_341_600 + second))
    }

    static func json(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try! encoder.encode(value), as: UTF8.self)
    }

    /// A second of two paths, of which `b` is lost at 0.5 s: 100 and 50 requests each tenth, then 150 and none.
    static func failOver(lun: String = "vm-store") -> [String] {
        var lines = [header]
        for step in 0...10 {
            let (before, after) = (min(step, 5), max(0, step - 5))
            let a = 100 * before + 150 * after, b = 50 * before
            lines.append(
                sample(Double(step) / 10, lun: lun, [("a", a, a * 4096, step == 0 ? nil : 200), ("b", b, b * 4096, step == 0 || step > 5 ? nil : 300)]))
            if step == 5 {
                lines.append(event(0.501, "path-lost", lun: lun, path: "b", "b lost: connection reset; 3 requests re-driven"))
                lines.append(event(0.502, "fail-over", lun: lun, path: "b", "fail-over from b to a"))
            }
        }
        return lines
    }
}

@Suite struct RecordingReaderTests {
    private func read(_ lines: [String], end: String = "\n", limit: Int = 1 << 20) throws -> RecordingReader {
        let folder = Folder()
        try folder.write(lines.joined(separator: "\n") + end, to: "r.jsonl")
        return try RecordingReader.read(folder.path + "/r.jsonl", maximumLineByteCount: limit)
    }

    /// Reads, and expects a complaint about this line.
    private func expectBad(_ lines: [String], line: Int?, _ words: String, end: String = "\n", limit: Int = 1 << 20) {
        do {
            _ = try read(lines, end: end, limit: limit)
            Issue.record("it was read")
        } catch let error as BadRecording {
            #expect(error.line == line && error.description.contains(words), "\(error)")
            if let line { #expect(error.description.contains("r.jsonl:\(line): ")) }
        } catch {
            Issue.record("\(error)")
        }
    }

    @Test func whatWasWrittenIsRead() throws {
        let reader = try read(RecordingText.failOver())
        let history = try #require(reader.histories.first)
        #expect(reader.histories.count == 1 && reader.warning == nil)
        #expect(history.name == "vm-store" && history.policy == "round-robin" && history.curves.map(\.path) == ["a", "b"])
        #expect(history.curves[0].points.count == 11 && history.curves[0].points[5].requests == 500)
        #expect(history.curves[0].points[1].p99Microseconds == 200 && history.curves[0].points[0].p99Microseconds == nil)
        #expect(history.events.map(\.kind) == ["path-lost", "fail-over"])
        // The event's moment on the monotonic clock, though it is recorded on the wall's.
        #expect(abs(history.events[0].seconds - 1000.501) < 0.002, "\(history.events[0])")
    }

    @Test func eventsBeforeTheFirstSampleHaveTheirMomentToo() throws {
        var lines = RecordingText.failOver()
        lines.insert(RecordingText.event(0.05, "policy-changed"), at: 1)
        let history = try #require(try read(lines).histories.first)
        #expect(history.events.count == 3)
        #expect(history.events.contains { $0.kind == "policy-changed" && abs($0.seconds - 1000.05) < 0.002 })
    }

    @Test func brokenFilesAreNamedWithTheirLine() {
        let good = RecordingText.failOver()
        expectBad([], line: nil, "the file is empty", end: "")
        expectBad(["", ""], line: nil, "the file is empty")
        expectBad(["hello"], line: 1, "not a recording")
        expectBad([good[1]], line: 1, "not a recording")
        expectBad([RecordingText.header.replacing("\"recording\":1", with: "\"recording\":2")] + good, line: 1, "version 2")
        expectBad(good + ["{"] + good.suffix(1), line: good.count + 1, "not JSON")
        expectBad(good + good, line: good.count + 1, "another recording begins here")
        expectBad(good + ["{}"], line: good.count + 1, "neither a sample")
        expectBad(good + ["[]"], line: good.count + 1, "of another type")
        expectBad(good + [good[1]], line: good.count + 1, "time goes backwards in vm-store")
        expectBad(good + [#"{"kind":"path-lost"}"#], line: good.count + 1, "an event without")
        expectBad(good + [#"{"kind":"path-lost","lun":"x","message":"m","at":"yesterday"}"#], line: good.count + 1, "without its moment")
        expectBad([good[0], good[1].replacing("\"clock_s\":1000,", with: "")], line: 2, "without its moment")
        expectBad([good[0], good[1].replacing("\"clock_s\":1000", with: "\"clock_s\":-1")], line: 2, "moment")
        expectBad([good[0], good[1].replacing("\"clock_s\":1000", with: "\"clock_s\":1e300")], line: 2, "moment")
        expectBad([good[0], good[2].replacing("\"requests\":100", with: "\"requests\":-100")], line: 2, "out of range")
        expectBad([good[0], good[2].replacing("\"requests\":100", with: "\"requests\":\"many\"")], line: 2, "luns[0].paths[0].requests")
        expectBad([good[0], good[2].replacing("\"requests\":100,", with: "")], line: 2, "'luns[0].paths[0].requests' is missing")
        expectBad([good[0], String(repeating: "x", count: 2000)], line: 2, "longer than 1000 bytes", limit: 1000)
        expectBad([good[0], String(repeating: "[", count: 100_000), ""], line: 2, "r.jsonl:2: ")
    }

    /// Whatever line is cut at whatever place: the end is left out with a warning, and nothing else happens.
    @Test func aFileThatWasCutShortIsReadUpToThere() throws {
        let text = RecordingText.failOver().joined(separator: "\n") + "\n"
        let bytes = Array(text.utf8)
        let headerEnd = bytes.firstIndex(of: 0x0A)! + 1
        let folder = Folder()
        for end in stride(from: headerEnd, through: bytes.count, by: 37) {
            let name = folder.path + "/cut.jsonl"
            try Data(bytes[..<end]).write(to: URL(fileURLWithPath: name))
            let reader = try RecordingReader.read(name)
            // A line of which only its end is missing is whole.
            #expect(reader.warning == nil || reader.warning?.contains("cut short and left out") == true)
            let lines = bytes[..<end].filter { $0 == 0x0A }.count
            #expect((reader.histories.first?.curves[0].points.count ?? 0) + (reader.histories.first?.events.count ?? 0) >= lines - 1)
        }
        let cut = try read(RecordingText.failOver() + [#"{"at":"2026"#], end: "")
        #expect(cut.warning?.hasSuffix("r.jsonl:15: the last line is cut short and left out") == true, "\(cut.warning ?? "")")
    }

    /// Random damage must not do more than be refused.
    @Test func damageIsRefusedOrReadButNeverTraps() throws {
        var random = SystemRandomNumberGenerator()
        let bytes = Array(RecordingText.failOver().joined(separator: "\n").utf8)
        let folder = Folder()
        let name = folder.path + "/damaged.jsonl"
        for _ in 0..<300 {
            var damaged = bytes
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let place = Int.random(in: damaged.indices, using: &random)
                switch Int.random(in: 0...3, using: &random) {
                case 0: damaged[place] = .random(in: 0...255, using: &random)
                case 1: damaged[place] = "0123456789eE-+.\"{}[]:,\n".utf8.randomElement(using: &random)!
                case 2: damaged.remove(at: place)
                default: damaged.insert(contentsOf: "999999999".utf8, at: place)
                }
            }
            try Data(damaged).write(to: URL(fileURLWithPath: name))
            do {
                for history in try RecordingReader.read(name).histories {
                    guard let model = PlotModel(history) else { continue }
                    try Picture(PlotDrawing.svg(model)).check()
                }
            } catch let error as BadRecording {
                #expect(!error.message.isEmpty)
            }
        }
    }

    @Test func aFolderOrNothingIsSaidToBeThat() {
        #expect(throws: BadRecording(file: "/none/x", message: "No such file or directory")) { try RecordingReader.read("/none/x") }
        #expect(throws: BadRecording(file: "/tmp", message: "Is a directory")) { try RecordingReader.read("/tmp") }
    }
}

@Suite struct RecordingWriterTests {
    @Test func whatIsThereIsNotOverwritten() throws {
        let folder = Folder()
        try folder.write("precious", to: "r.jsonl")
        let header = RecordingHeader(at: RecordingText.moment(0), everySeconds: 0.1, luns: [], command: "mpio")
        #expect(throws: CommandFailure.self) { _ = try RecordingWriter(folder.path + "/r.jsonl", header: header) }
        #expect(try String(contentsOfFile: folder.path + "/r.jsonl", encoding: .utf8) == "precious")
        #expect(throws: CommandFailure.self) { _ = try RecordingWriter(folder.path + "/none/r.jsonl", header: header) }
    }

    @Test func aFullDiskIsSaidAndNotPassedOver() throws {
        // The only device that is always full. O_EXCL keeps the writer away from it by name, so it is behind a descriptor.
        let folder = Folder()
        let writer = try RecordingWriter(folder.path + "/r.jsonl", header: RecordingHeader(at: "", everySeconds: 1, luns: [], command: ""))
        #expect(writer.failure == nil)
        let full = open("/dev/full", O_WRONLY)
        defer { close(full) }
        try #require(full >= 0)
        writer.redirect(to: full)
        writer.sample([])
        writer.sample([])
        #expect(writer.failure?.description.contains("No space left") == true && writer.counts.samples == 0)
    }

    @Test func latencyIsThatOfTheTimeBetweenSamples() {
        var intervals = LatencyIntervals()
        var lun = LUNSnapshot(name: "a", policy: "round-robin", state: .optimal)
        lun.paths = [PathSnapshot(id: "p", transport: .iscsi, portal: "p", state: .activeOptimized)]
        func taken(_ counts: [UInt64]) -> LUNSnapshot {
            var sample = lun
            sample.paths[0].latencyCounts = LatencyCounts(nanoseconds: [1000, 2000], counts: counts)
            intervals.take(&sample)
            return sample
        }
        #expect(taken([5, 0]).paths[0].intervalLatency == nil && taken([5, 0]).paths[0].latencyCounts == nil)
        #expect(taken([5, 3]).paths[0].intervalLatency == LatencySummary(p50: 2, p99: 2, max: 2))
        #expect(taken([9, 3]).paths[0].intervalLatency == LatencySummary(p50: 1, p99: 1, max: 1))
    }
}
