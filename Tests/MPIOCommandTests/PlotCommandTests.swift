import Foundation
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand

@Suite struct PlotCommandTests {
    private func written(_ lines: [String]) throws -> Folder {
        let folder = Folder()
        try folder.write(lines.joined(separator: "\n") + "\n", to: "run.jsonl")
        return folder
    }

    private func picture(_ file: String) throws -> Picture {
        let picture = Picture(try String(contentsOfFile: file, encoding: .utf8))
        try picture.check()
        return picture
    }

    @Test func aRecordingBecomesAPictureBesideIt() throws {
        let folder = try written(RecordingText.failOver())
        let run = try Mpio("plot", "run.jsonl", folder: folder.path)
        #expect(run.status == 0 && run.errors.isEmpty && run.output == "run.svg: vm-store over 1.0 s, 2 paths, 2 events\n", "\(run)")
        #expect(try picture(folder.path + "/run.svg").all("path", class: "line").count == 2)
        // It may be drawn again, somewhere else, or into a pipe.
        #expect(try Mpio("plot", "run.jsonl", folder: folder.path).status == 0)
        let piped = try Mpio("plot", "run.jsonl", "--out", "-", folder: folder.path)
        try Picture(piped.output).check()
        #expect(piped.status == 0 && PlotCommand.defaultOutput("a.b/run") == "a.b/run.svg" && PlotCommand.defaultOutput("x/run.jsonl") == "x/run.svg")
    }

    @Test func oneOfSeveralLUNsIsChosen() throws {
        let folder = try written(RecordingText.failOver() + RecordingText.failOver(lun: "scratch").dropFirst())
        let which = try Mpio("plot", "run.jsonl", folder: folder.path)
        #expect(which.status == 64 && which.errors.contains("several LUNs: vm-store, scratch; choose one by --lun"), "\(which)")
        let wrong = try Mpio("plot", "run.jsonl", "--lun", "other", folder: folder.path)
        #expect(wrong.status == 64 && wrong.errors.contains("no LUN 'other'; it has vm-store, scratch"), "\(wrong)")
        let run = try Mpio("plot", "run.jsonl", "--lun", "scratch", "--out", "s.svg", folder: folder.path)
        #expect(run.status == 0 && run.output.hasPrefix("s.svg: scratch over"), "\(run)")
    }

    @Test func whatCanNotBeDrawnIsSaidWithItsPlace() throws {
        var folder = try written(RecordingText.failOver() + ["nonsense", RecordingText.event(2, "fail-over")])
        let broken = try Mpio("plot", "run.jsonl", folder: folder.path)
        #expect(broken.status == 1 && broken.errors.hasPrefix("mpio: run.jsonl:15: not JSON"), "\(broken)")
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/run.svg"))

        folder = try written(RecordingText.failOver())
        try FileHandle(forWritingTo: URL(fileURLWithPath: folder.path + "/run.jsonl")).apply {
            try $0.seekToEnd()
            try $0.write(contentsOf: Data(#"{"at":"20"#.utf8))
        }
        let cut = try Mpio("plot", "run.jsonl", folder: folder.path)
        #expect(cut.status == 0 && cut.errors == "mpio: run.jsonl:15: the last line is cut short and left out\n", "\(cut)")

        let same = try Mpio("plot", "run.jsonl", "--out", "./run.jsonl", folder: folder.path)
        #expect(same.status == 64 && same.errors.contains("is the recording"), "\(same)")
        let nowhere = try Mpio("plot", "run.jsonl", "--out", "none/x.svg", folder: folder.path)
        #expect(nowhere.status == 1 && nowhere.errors.contains("No such file"), "\(nowhere)")
        let onFolder = try Mpio("plot", "run.jsonl", "--out", ".", folder: folder.path)
        #expect(onFolder.status == 64 && onFolder.errors.contains("is a folder"), "\(onFolder)")
        try folder.write(RecordingText.header + "\n" + RecordingText.sample(0, [("a", 1, 1, nil)]) + "\n", to: "one.jsonl")
        let one = try Mpio("plot", "one.jsonl", folder: folder.path)
        #expect(one.status == 1 && one.errors.contains("fewer than two samples of vm-store"), "\(one)")
        try folder.write(RecordingText.header + "\n", to: "none.jsonl")
        let none = try Mpio("plot", "none.jsonl", folder: folder.path)
        #expect(none.status == 1 && none.errors == "mpio: none.jsonl: it has no sample\n", "\(none)")
    }

    @Test func usage() throws {
        let folder = try written(RecordingText.failOver())
        let lun = try Mpio("plot", "vm-store", "--out", "x.svg", folder: folder.path)
        #expect(lun.status == 1 && lun.errors.contains("there is no file 'vm-store', and no running process holds 'vm-store'"), "\(lun)")
        #expect(try Mpio("plot", "vm-store", folder: folder.path).errors.contains("--out FILE.svg is needed"))
        // --for makes it a LUN, though there is such a file.
        let recorded = try Mpio("plot", "run.jsonl", "--out", "x.svg", "--for", "1s", folder: folder.path)
        #expect(recorded.status == 1 && recorded.errors.contains("no running process holds 'run.jsonl'"), "\(recorded)")
        #expect(try Mpio("plot", "x", "--every", "1ms", folder: folder.path).status == 64)
        #expect(try Mpio("plot", "x", "--for", "1ms", folder: folder.path).status == 64)
        #expect(try Mpio("plot", "x", "--for", "1s", "--lun", "y", folder: folder.path).status == 64)
        #expect(try Mpio("paths", "--every", "1s", folder: folder.path).status == 64)
        #expect(try Mpio("paths", "--record", "x", "--every", "1ms", folder: folder.path).status == 64)
        #expect(try Mpio("paths", "--record", "x", "--json", folder: folder.path).status == 64)
        #expect(try Mpio("paths", "--record", "run.jsonl", folder: folder.path).status == 1)
    }
}

@Suite(.serialized) struct RecordTests {
    /// A line's kind, to know when enough is there.
    private func lines(_ file: String) -> [String] {
        ((try? String(contentsOfFile: file, encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
    }

    @Test func aHeldLUNIsRecordedUntilInterruptedAndDrawn() async throws {
        let array = try HeldArray()
        try await array.hold()
        let file = array.folder.path + "/run.jsonl"
        let environment = ["XDG_RUNTIME_DIR": array.folder.path, "HOME": array.folder.path, "MPIO_CONFIG": array.folder.path + "/mpio.yaml"]
        let recorder = try ChildProcess(
            executable: Mpio.binary, arguments: ["paths", "vm-store", "--watch=0.1", "--record", file, "--every", "20ms"],
            environment: environment, standardOutput: .file(array.folder.path + "/watch.out"), standardError: .file(array.folder.path + "/watch.err"))
        #expect(try await eventually(within: .seconds(60)) { lines(file).count > 5 })
        #expect(try await array.run("path", "fail", "vm-store", array.portals[0]).succeeded)
        #expect(try await eventually(within: .seconds(60)) { lines(file).contains { $0.contains("path-taken-out") } })
        let count = lines(file).count
        #expect(try await eventually(within: .seconds(60)) { lines(file).count > count + 3 })
        // It shows as well.
        let shown = array.folder.path + "/watch.out"
        #expect(try await eventually(within: .seconds(60)) { lines(shown).contains { $0.contains("taken out by hand") } })
        recorder.send(signal: SIGTERM)
        #expect(recorder.wait(timeout: .seconds(20)) == .exited(0))
        #expect(try String(contentsOfFile: file, encoding: .utf8).hasSuffix("}\n"))
        // What `paths --json` prints is in every sample; nothing that the file does not need.
        let sample = try #require(lines(file).last { $0.contains("\"luns\":[{") })
        let report = try JSONDecoder().decode(PathsReport.self, from: Data(sample.utf8))
        #expect(report.luns.map(\.name) == ["vm-store"] && report.luns[0].clockSeconds != nil && report.luns[0].paths[0].latencyCounts == nil)

        let drawn = try await array.run("plot", file)
        #expect(drawn.succeeded && drawn.standardError.isEmpty, "\(drawn)")
        let picture = Picture(try String(contentsOfFile: array.folder.path + "/run.svg", encoding: .utf8))
        try picture.check()
        #expect(picture.all("title").contains { $0.text.hasPrefix("vm-store: ") } && picture.texts.contains { $0.contains("taken out") }, "\(picture.texts)")
    }

    @Test func aLUNUnderLoadIsDrawnAsItRuns() async throws {
        let array = try HeldArray()
        let environment = ["XDG_RUNTIME_DIR": array.folder.path, "HOME": array.folder.path, "MPIO_CONFIG": array.folder.path + "/mpio.yaml"]
        let load = try ChildProcess(
            executable: Mpio.binary, arguments: ["bench", "vm-store", "--time", "100s", "--depth", "4"], environment: environment)
        #expect(try await eventually(within: .seconds(60)) { try await array.run("policy", "vm-store").succeeded })
        let file = array.folder.path + "/live.svg"
        let run = try await array.run("plot", "vm-store", "--out", file, "--for", "1s", "--every", "50ms")
        load.send(signal: SIGINT)
        #expect(run.succeeded && run.standardOutput.contains("live.svg: vm-store over "), "\(run)")
        let picture = Picture(try String(contentsOfFile: file, encoding: .utf8))
        try picture.check()
        #expect(picture.all("path", class: "line").compactMap(\.title).sorted() == array.portals.prefix(2).sorted(), "p99 of each path")
        #expect(picture.all("path", class: "area").count == 4)
        #expect(load.wait(timeout: .seconds(20)) != nil)
    }

    @Test func itEndsByItselfAndSaysWhatItHas() async throws {
        let array = try HeldArray()
        try await array.hold()
        let file = array.folder.path + "/run.jsonl"
        let run = try await array.run("paths", "--record", file, "--for", "200ms")
        #expect(run.succeeded && run.standardOutput.wholeMatch(of: /.*run\.jsonl: [0-9]+ samples, 0 events\n/) != nil, "\(run)")
        // The first and the last moment at least: so it can be drawn.
        #expect(try #require(RecordingReader.read(file).histories.first).curves[0].points.count >= 2)
        let again = try await array.run("paths", "--record", file, "--for", "200ms")
        #expect(again.exitStatus == 64 && again.standardError.contains("exists"), "\(again)")
        let nobody = try await array.run("paths", "other", "--record", file + "2")
        #expect(nobody.exitStatus == 1 && nobody.standardError.contains("no running process holds 'other'"), "\(nobody)")
        #expect(!FileManager.default.fileExists(atPath: file + "2"))
    }

    /// The holder ends and another comes: the recording goes on.
    @Test func holdersMayComeAndGo() async throws {
        let array = try HeldArray()
        try await array.hold()
        let file = array.folder.path + "/run.jsonl"
        let recorder = try ChildProcess(
            executable: Mpio.binary, arguments: ["paths", "--record", file, "--every", "20ms"],
            environment: ["XDG_RUNTIME_DIR": array.folder.path, "HOME": array.folder.path])
        #expect(try await eventually(within: .seconds(60)) { lines(file).count > 3 })
        array.holder?.send(signal: SIGINT)
        #expect(array.holder?.wait(timeout: .seconds(20)) == .exited(0))
        let count = lines(file).count
        try await array.hold()
        #expect(try await eventually(within: .seconds(60)) { lines(file).count > count + 3 })
        recorder.send(signal: SIGINT)
        #expect(recorder.wait(timeout: .seconds(20)) == .exited(0))
        let history = try #require(try RecordingReader.read(file).histories.first)
        #expect(Set(history.curves.map(\.holder)).count == 2 && PlotModel(history)?.series.count == 2)
    }

    @Test func theDemoDrawsItsCut() throws {
        let folder = Folder()
        let bad = try Mpio("demo", "--fast", "--plot", "none/x.svg", folder: folder.path)
        #expect(bad.status == 1 && bad.output.isEmpty, "before fifteen seconds of work")
        let run = try Mpio("demo", "--fast", "--plot", "cut.svg", folder: folder.path)
        #expect(run.status == 0 && run.output.contains("The cut as a picture: cut.svg"), "\(run)")
        let picture = Picture(try String(contentsOfFile: folder.path + "/cut.svg", encoding: .utf8))
        try picture.check()
        #expect(picture.all("path", class: "area").count == 8)
        let labels = picture.texts.joined(separator: " ")
        #expect(labels.contains("path lost") && labels.contains("path back") && labels.contains("lost: connection reset"), "\(labels)")
    }
}

extension FileHandle {
    fileprivate func apply(_ body: (FileHandle) throws -> Void) throws {
        try body(self)
        try close()
    }
}
