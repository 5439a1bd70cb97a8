import Foundation
import MPIO
import Testing

@testable import MPIOCommand

private func history(_ lines: [String], lun: String = "vm-store") throws -> LUNHistory {
    let folder = Folder()
    try folder.write(lines.joined(separator: "\n") + "\n", to: "r.jsonl")
    return try #require(try RecordingReader.read(folder.path + "/r.jsonl").histories.first { $0.name == lun })
}

private func near(_ a: Double?, _ b: Double, _ tolerance: Double = 1) -> Bool { a.map { abs($0 - b) <= tolerance } ?? false }

@Suite struct PlotModelTests {
    @Test func ratesAreDifferencesOfCounters() throws {
        let model = try #require(PlotModel(try history(RecordingText.failOver())))
        #expect(model.stepCount == 10 && near(model.seconds, 1, 1e-6) && near(model.samplePeriodSeconds, 0.1, 1e-6))
        #expect(model.series.map(\.name) == ["a", "b"])
        for step in 0..<10 {
            let (a, b) = (model.series[0], model.series[1])
            #expect(near(a.requestsPerSecond[step], step < 5 ? 1000 : 1500), "\(step)")
            #expect(near(b.requestsPerSecond[step], step < 5 ? 500 : 0), "\(step)")
            #expect(near(a.bytesPerSecond[step], (step < 5 ? 1000 : 1500) * 4096, 4096))
            #expect(a.p99Microseconds[step] == 200 && b.p99Microseconds[step] == (step < 5 ? 300 : nil), "\(step)")
        }
        #expect(model.marks.map(\.label) == ["path lost", "fail-over"])
        #expect(near(model.marks[0].seconds, 0.501, 0.003) && model.marks[0].path == "b")
    }

    @Test func unevenSamplesLoseNothing() throws {
        var lines = [RecordingText.header]
        var count = 0
        var moment = 0.0
        for step in 0..<200 {
            lines.append(RecordingText.sample(moment, [("a", count, count, nil)]))
            count += step * 7 % 31
            moment += step % 3 == 0 ? 0.013 : 0.029
        }
        let known = try history(lines)
        let model = try #require(PlotModel(known))
        let drawn = model.series[0].requestsPerSecond.reduce(0) { $0 + ($1 ?? 0) * model.stepSeconds }
        #expect(near(drawn, Double(known.curves[0].points.last!.requests), 1e-6 * drawn + 0.001), "\(drawn)")
    }

    @Test func wherePathsWereNotSeenThereIsAGap() throws {
        var lines = [RecordingText.header]
        for step in 0..<20 { lines.append(RecordingText.sample(Double(step) / 10, [("a", step * 10, 0, nil)])) }
        // Twenty seconds of nothing.
        for step in 0..<20 { lines.append(RecordingText.sample(22 + Double(step) / 10, [("a", 5000 + step * 10, 0, nil)])) }
        let model = try #require(PlotModel(try history(lines)))
        let known = model.series[0].requestsPerSecond.map { $0 != nil }
        #expect(PlotDrawing.runs(known).count == 2, "\(known)")
        #expect(model.series[0].requestsPerSecond.allSatisfy { $0 == nil || near($0, 100) })
        // Counters that were set back are a gap too, and no negative rate.
        lines = [RecordingText.header]
        for step in 0..<40 { lines.append(RecordingText.sample(Double(step) / 10, [("a", (step < 20 ? step : step - 20) * 10, 0, nil)])) }
        let back = try #require(PlotModel(try history(lines)))
        #expect(back.series[0].requestsPerSecond.allSatisfy { $0 == nil || $0! >= 0 && $0! <= 101 })
    }

    @Test func twoHoldersOfALUNAreAddedUp() throws {
        var lines = [RecordingText.header]
        for step in 0...10 {
            lines.append(RecordingText.sample(Double(step) / 10, pid: 7, [("a", step * 10, 0, 100)]))
            lines.append(RecordingText.sample(Double(step) / 10 + 0.01, pid: 8, [("a", 900 + step * 20, 0, 400)]))
        }
        let model = try #require(PlotModel(try history(lines)))
        #expect(model.series.count == 1 && near(model.series[0].requestsPerSecond[5], 300, 2))
        #expect(model.series[0].p99Microseconds[5] == 400)
    }

    @Test func manyPathsShareAColour() throws {
        var lines = [RecordingText.header]
        for step in 0...10 {
            lines.append(RecordingText.sample(Double(step) / 10, (0..<50).map { ("path \($0)", step * $0, step * $0 * 512, Double($0 + 1)) }))
        }
        let model = try #require(PlotModel(try history(lines)))
        #expect(model.series.map(\.name) == (43..<50).map { "path \($0)" } + ["43 other paths"])
        #expect(near(model.series.reduce(0) { $0 + ($1.requestsPerSecond[4] ?? 0) }, Double((0..<50).reduce(0, +)) * 10, 5))
        #expect(model.series.last?.p99Microseconds[4] == 43 && model.pathCount == 50)
        try Picture(PlotDrawing.svg(model)).check()
    }

    @Test func oneSampleIsNothingToDraw() throws {
        #expect(PlotModel(try history([RecordingText.header, RecordingText.sample(0, [("a", 1, 1, nil)])])) == nil)
        let same = RecordingText.sample(0, [("a", 1, 1, nil)])
        #expect(PlotModel(try history([RecordingText.header, same, same])) == nil)
        #expect(PlotModel(try history([RecordingText.header, RecordingText.sample(0, [])])) == nil)
    }

    @Test func everyMarkIsOfAnEventThatThereIs() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Sources/MPIO/Inspection/EventWords.swift").path
        // "done" is an outcome's word.
        let kinds = Set(try String(contentsOfFile: file, encoding: .utf8).matches(of: /: "([a-z-]+)"\n/).map { String($0.output.1) }).subtracting(["done"])
        func mark(_ kind: String) -> PlotMark? { PlotMark(.init(seconds: 0, kind: kind, path: nil, message: ""), seconds: 0) }
        #expect(kinds.count > 30)
        // What stays out is known by name: remarks of an instant that change nothing of what the curves show.
        let left: Set = ["defined", "notice", "queue-shrunk", "fence-failed", "connections-limited", "transition-requested", "transition-ended"]
        #expect(Set(kinds.filter { mark($0) == nil }) == left)
        #expect(mark("made-up") == nil)
    }
}

@Suite struct PlotAxisTests {
    @Test func ticksAreRoundAndFew() {
        for maximum in [0, 1e-9, 0.3, 1, 7, 99, 100, 101, 4096, 999_999, 3.2e9, 1e30, .infinity, .nan] {
            let axis = PlotAxis.linear(maximum: maximum, label: PlotAxis.countText)
            #expect((2...8).contains(axis.ticks.count) && axis.ticks.map(\.value) == axis.ticks.map(\.value).sorted(), "\(maximum): \(axis)")
            #expect(axis.highest > 0 && axis.share(axis.highest) == 1 && axis.share(-5) == 0)
            if maximum.isFinite, maximum > 1e-9, maximum < 1e17 { #expect(axis.highest >= maximum && axis.highest <= maximum * 3) }
        }
        #expect(PlotAxis.linear(maximum: 240_000, label: PlotAxis.countText).ticks.map(\.label) == ["0", "100k", "200k", "300k"])
    }

    @Test func latencyIsOnALogarithmicAxis() {
        let axis = PlotAxis.latency(minimum: 180, maximum: 8000)
        #expect(axis.isLogarithmic && axis.lowest == 100 && axis.highest == 10_000, "\(axis)")
        #expect(axis.ticks.map(\.label) == ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms"])
        #expect(near(axis.share(1000), 0.5, 1e-9) && axis.share(0) == 0 && axis.share(1e9) == 1)
        for (low, high) in [(1, 1), (0, 0), (0.001, 1e15), (5, 5e7), (1e12, 1), (Double.nan, .infinity)] as [(Double, Double)] {
            let axis = PlotAxis.latency(minimum: low, maximum: high)
            #expect((2...7).contains(axis.ticks.count) && axis.lowest > 0 && axis.highest > axis.lowest, "\(low) \(high): \(axis)")
        }
    }

    @Test func timesAreReadable() {
        #expect(PlotAxis.time(seconds: 7.3).ticks.map(\.label) == ["0 s", "1 s", "2 s", "3 s", "4 s", "5 s", "6 s", "7 s"])
        #expect(PlotAxis.time(seconds: 0.4).ticks.last?.label == "400 ms")
        #expect(PlotAxis.time(seconds: 600).ticks.map(\.label).prefix(3) == ["0:00", "1:00", "2:00"])
        #expect(PlotAxis.time(seconds: 86_400).ticks.last?.label == "24:00:00")
        for seconds in [0, 1e-7, 0.01, 33, 5000, 1e7, 3e12, .nan] { #expect(PlotAxis.time(seconds: seconds).ticks.count <= 11, "\(seconds)") }
    }

    @Test func numbersAreShort() {
        #expect([0, 1500, 20_000, 3_000_000, 0.5].map(PlotAxis.countText) == ["0", "1.5k", "20k", "3M", "0.5"])
        #expect([0.5, 200, 1000, 2e6].map(PlotAxis.latencyText) == ["0.5 µs", "200 µs", "1 ms", "2 s"])
        #expect([0, 1.04, -0.25, 12.96, .nan, 1e12].map(SVGText.number) == ["0", "1", "-.3", "13", "0", "1000000"])
        #expect(SVGText.line([(0, 0), (1, 2), (1.5, 1)]) == "M0 0l1 2 .5-1")
    }
}

@Suite struct PlotLabelTests {
    /// Wherever the events are: no two labels overlap, none leaves its bounds, and no line goes through one.
    @Test func labelsNeverOverlap() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            let lines = (0..<Int.random(in: 0...30, using: &random))
                .map { _ in (x: Double.random(in: 72...944, using: &random), width: Double.random(in: 30...300, using: &random)) }
                .sorted { $0.x < $1.x }
            let places = PlotLabels.places(lines, within: 72...952, laneCount: 5)
            var boxes: [(lane: Int, from: Double, to: Double, line: Int)] = []
            for (index, place) in places.enumerated() {
                guard let place else { continue }
                let from = place.isLeft ? lines[index].x - lines[index].width : lines[index].x
                boxes.append((place.lane, from, from + lines[index].width, index))
                #expect(from >= 72 && from + lines[index].width <= 952 && (0..<5).contains(place.lane))
            }
            for (number, box) in boxes.enumerated() {
                for other in boxes[..<number] where other.lane == box.lane { #expect(box.from >= other.to || other.from >= box.to) }
                for (index, place) in places.enumerated() where index != box.line {
                    // A line goes down from its label's lane.
                    guard let lane = place?.lane, lane <= box.lane else { continue }
                    let x = lines[index].x
                    #expect(x <= box.from || x >= box.to, "line at \(x) through \(box)")
                }
            }
            if let first = places.first { #expect(first != nil || lines[0].x + lines[0].width > 952) }
        }
    }

    @Test func eventsOfOneMomentShareALabel() {
        func mark(_ seconds: Double, _ label: String, _ meaning: PlotMark.Meaning) -> PlotMark {
            PlotMark(seconds: seconds, meaning: meaning, label: label, message: "")
        }
        let marks = [mark(1, "fail-over", .change), mark(1.001, "path lost", .loss), mark(1.002, "path lost", .loss), mark(5, "path back", .gain)]
        let groups = PlotMarkGroup.groups(marks, distance: 4) { $0 * 100 }
        #expect(groups.map(\.label) == ["fail-over · path lost ×2", "path back"] && groups.map(\.meaning) == [.loss, .gain])
    }
}

@Suite struct PlotDrawingTests {
    private func picture(_ lines: [String]) throws -> Picture {
        let picture = Picture(PlotDrawing.svg(try #require(PlotModel(try history(lines)))))
        try picture.check()
        return picture
    }

    @Test func thePictureHasThreePanelsALineForEachPathAndItsEvents() throws {
        let picture = try picture(RecordingText.failOver())
        #expect(picture.elements.first?.name == "svg" && picture.elements.first?.attributes["role"] == "img")
        #expect(picture.all("g", class: "panel").count == 3)
        #expect(picture.all("path", class: "area").compactMap(\.title) == ["b", "a", "b", "a"])
        #expect(picture.all("path", class: "line").compactMap(\.title) == ["a", "b"])
        // Both events are one millisecond apart: one line, one label, and both told below.
        let events = picture.all("path", class: "event")
        #expect(events.count == 1 && events[0].has(class: "loss") && events[0].title?.contains("3 requests re-driven") == true)
        #expect(picture.texts.contains("path lost · fail-over") && picture.texts.contains { $0.hasPrefix("b lost: connection reset") })
        #expect(picture.all("path", class: "down").count == 1)
        let titles = picture.all("title").filter { $0.parents == ["svg"] }, descriptions = picture.all("desc")
        #expect(titles.count == 1 && titles[0].text.hasPrefix("vm-store: ") && titles[0].attributes["id"] == "title")
        #expect(descriptions.count == 1 && descriptions[0].text.contains("2 paths (a, b)") && descriptions[0].text.contains("b lost"))
        #expect(picture.all("style").first?.text.contains("prefers-color-scheme:dark") == true)
    }

    /// Read back from the drawing: where the curves end is what the counters said.
    @Test func theHeightsAreTheRates() throws {
        let picture = try picture(RecordingText.failOver())
        func points(_ data: String) -> [(x: Double, y: Double)] {
            var at = (x: 0.0, y: 0.0)
            return data.matches(of: /-?\.?[0-9]+(?:\.[0-9]+)?/).map { Double(String($0.output))! }.chunked(2).enumerated().map { index, pair in
                at = index == 0 ? (pair[0], pair[1]) : (at.x + pair[0], at.y + pair[1])
                return at
            }
        }
        let areas = picture.all("path", class: "area").map { points($0.attributes["d"]!) }
        // Panel of requests: 0 to 2000 (1500 and its round number above) on 120 pixels.
        let ground = areas[1][0].y
        let sum = areas[0].dropFirst().dropLast().map { ground - $0.y }, a = areas[1].dropFirst().dropLast().map { ground - $0.y }
        #expect(sum.allSatisfy { near($0, sum[0], 0.6) }, "the sum is as before: \(sum)")
        #expect(near(a.first, sum[0] * 2 / 3, 0.6) && near(a.last, sum[0], 0.6), "\(a)")
        #expect(areas[0].first?.x == 72 && near(areas[0].last?.x, 944, 0.3))
    }

    @Test func whatADeviceSaysIsNeverMarkup() throws {
        let evil = "\"><script>alert(1)</script><a b='&amp;\u{202E}\u{0}\u{FFFF}]]>"
        var lines = RecordingText.failOver(lun: evil).map { $0.replacing("\"id\":\"a\"", with: "\"id\":" + RecordingText.json(evil)) }
        lines.append(RecordingText.event(0.9, "path-regained", lun: evil, path: evil, "<svg onload=x>" + evil))
        lines.append(RecordingText.event(0.95, "<b>", lun: evil, "unknown"))
        let picture = Picture(PlotDrawing.svg(try #require(PlotModel(try history(lines, lun: evil)))))
        try picture.check()
        #expect(!picture.text.contains("<script") && !picture.text.contains("onload=x>") && !picture.text.contains("\u{202E}"))
        #expect(picture.all("path", class: "line").first?.title == HumanText.printable(evil))
        #expect(picture.texts.contains { $0.hasPrefix("<svg onload") })
    }

    @Test func longNamesAndManyEventsStayInThePicture() throws {
        var lines = [RecordingText.header]
        let names = (0..<8).map { "iqn.2026-11.org.example:" + String(repeating: "long", count: 20 * ($0 + 1)) + "\($0)" }
        for step in 0...20 { lines.append(RecordingText.sample(Double(step) / 10, names.map { ($0, step, step, 10) })) }
        for step in 0..<300 { lines.append(RecordingText.event(Double(step) / 150, ["path-lost", "path-regained", "fail-over"][step % 3], path: names[step % 8], String(repeating: "words ", count: 100))) }
        let picture = try picture(lines)
        let height = picture.elements[0].number("height")
        for text in picture.all("text") {
            let size = text.has(class: "title") ? 18.0 : text.has(class: "head") ? 13 : 12
            let width = TextWidth.of(text.text, size: size)
            let start = text.has(class: "end") ? text.number("x") - width : text.has(class: "middle") ? text.number("x") - width / 2 : text.number("x")
            #expect(start >= 0 && start + width <= 960 && text.number("y") < height, "\(text)")
        }
        #expect(picture.texts.contains("… and \(300 - PlotDrawing.toldEventCount) more"))
        #expect(picture.text.utf8.count < 400_000)
    }

    @Test func aLongRecordingIsASmallPicture() throws {
        var lines = [RecordingText.header]
        for step in 0..<3000 {
            let count = step * 1000 + step * 7919 % 500
            lines.append(RecordingText.sample(Double(step) / 40, (0..<4).map { ("10.0.\($0).10:3260", count, count * 4096, Double(200 + step * 31 % 700)) }))
        }
        let picture = try picture(lines)
        #expect(picture.text.utf8.count < 60_000, "\(picture.text.utf8.count)")
    }

    @Test func timesOfAnyLengthAreDrawn() throws {
        for length in [0.001, 0.5, 60, 86_400, 1e9] {
            let lines = [RecordingText.header] + (0...5).map { RecordingText.sample(length * Double($0) / 5, [("a", $0 * 100, $0 << 20, 1e6)]) }
            _ = try picture(lines)
        }
        // A disk that carried nothing.
        let idle = try picture([RecordingText.header] + (0...5).map { RecordingText.sample(Double($0), [("a", 7, 7, nil)]) })
        #expect(idle.all("path", class: "line").isEmpty)
    }
}

extension Array {
    fileprivate func chunked(_ count: Int) -> [[Element]] {
        stride(from: 0, to: self.count - count + 1, by: count).map { Array(self[$0..<$0 + count]) }
    }
}
