import ArgumentParser
import Foundation
import MPIO

struct PlotCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plot",
        abstract: "Draw requests/s, MB/s and latency of each path over time.",
        discussion: """
            Draws a recording of 'mpio paths --record', or records a LUN that a process holds for a while and draws that: \
            Ctrl-C ends the recording early. The picture is one SVG file, with a line at each event: paths lost and back, \
            fail-over, policy changes, the stale-write guard. Where a file and a LUN have the same name, the file is meant; \
            --for makes it the LUN.

            Examples:
              mpio plot run.jsonl
              mpio plot run.jsonl --lun vm-store --out vm-store.svg
              mpio plot vm-store --out vm-store.svg --for 30s
            """)

    @Argument(help: ArgumentHelp("A recording, or a LUN by name or identity.", valueName: "file|lun"), completion: Completions.lunsAndFiles)
    var source: String

    @Option(help: ArgumentHelp("The picture; '-' is standard output. For a recording, its name with .svg where left out.", valueName: "file"), completion: .file(extensions: ["svg"]))
    var out: String?

    @Option(help: ArgumentHelp("Which LUN of a recording that has several.", valueName: "name"))
    var lun: String?

    @Option(name: .customLong("for"), help: ArgumentHelp("How long a LUN is recorded; 30s by default.", valueName: "time"))
    var length: TimeSpan?

    @Option(help: ArgumentHelp("How often a LUN is looked at.", valueName: "time"))
    var every = TimeSpan(Recorder.defaultPeriod)

    @OptionGroup var options: HolderOptions

    func validate() throws {
        if every.duration < Recorder.shortestPeriod { throw ValidationError("--every takes at least \(Units.format(Recorder.shortestPeriod)).") }
        if let length, length.duration < every.duration { throw ValidationError("--for takes at least as long as --every.") }
        if length != nil, lun != nil { throw ValidationError("--lun chooses from a recording, --for records: give one of them.") }
    }

    func run() async throws {
        let isRecording = length == nil && access(source, F_OK) == 0
        // Before the work: whoever can't keep its result would have to do it twice.
        guard let file = out ?? (isRecording ? Self.defaultOutput(source) : nil) else {
            throw CommandFailure("--out FILE.svg is needed where a LUN is recorded", status: ExitStatus.usage)
        }
        try PictureFile.check(file, isNot: isRecording ? source : nil)
        let history = isRecording ? try read() : try await record()
        guard let model = PlotModel(history) else {
            throw CommandFailure("there are fewer than two samples of \(HumanText.printable(history.name)): nothing to draw")
        }
        try PictureFile.write(PlotDrawing.svg(model), to: file)
        if file != "-" { try StandardOutput.write(Self.summary(model, file)) }
    }

    static func defaultOutput(_ recording: String) -> String {
        let url = URL(fileURLWithPath: recording)
        // A folder's name may have a dot as well.
        let base = url.pathExtension.isEmpty ? recording : String(recording.dropLast(url.pathExtension.count + 1))
        return base + ".svg"
    }

    static func summary(_ model: PlotModel, _ file: String) -> String {
        let paths = model.pathCount == 1 ? "1 path" : "\(model.pathCount) paths"
        let events = model.marks.count == 1 ? "1 event" : "\(model.marks.count) events"
        return HumanText.printable("\(file): \(model.lun) over \(PlotDrawing.spanText(model.seconds)), \(paths), \(events)") + "\n"
    }

    private func read() throws -> LUNHistory {
        let recording = try RecordingReader.read(source)
        if let warning = recording.warning { StandardError.write("mpio: \(warning)\n") }
        return try Self.choose(lun, from: recording.histories, in: source)
    }

    /// The LUN that was asked for, or the only one.
    static func choose(_ name: String?, from all: [LUNHistory], in file: String) throws -> LUNHistory {
        let names = all.prefix(10).map(\.name).joined(separator: ", ") + (all.count > 10 ? ", …" : "")
        func fail(_ text: String) -> CommandFailure { CommandFailure(HumanText.printable("\(file): \(text)"), status: ExitStatus.usage) }
        if let name {
            if let found = all.first(where: { $0.name == name }) { return found }
            throw fail("it has no LUN '\(name)'" + (all.isEmpty ? "" : "; it has \(names)"))
        }
        guard let first = all.first else { throw CommandFailure(HumanText.printable("\(file): it has no sample")) }
        guard all.count == 1 else { throw fail("it has several LUNs: \(names); choose one by --lun") }
        return first
    }

    /// Records into a file that nobody else sees, and reads it.
    private func record() async throws -> LUNHistory {
        if let lun { throw CommandFailure("there is no file '\(HumanText.printable(source))' to choose the LUN '\(HumanText.printable(lun))' from", status: ExitStatus.usage) }
        let folder = try TemporaryFolder(prefix: "mpio-plot")
        defer { folder.remove() }
        let (source, period, length) = (source, every.duration, length?.duration ?? .seconds(30))
        let file = folder.path + "/recording.jsonl"
        let holders = try options.holders()
        let recorder: Recorder
        do {
            recorder = try Recorder(file, luns: [source], period: period, holders: holders)
        } catch let failure as CommandFailure {
            throw CommandFailure("there is no file '\(HumanText.printable(source))', and \(failure.description)", status: failure.status)
        }
        if StandardError.isTerminal { StandardError.write("recording for \(Units.format(length)); Ctrl-C ends it and draws\n") }
        try await cancelledByInterrupt { _ = try await recorder.run(for: length) }
        let histories = try RecordingReader.read(file).histories
        guard let history = histories.first else { throw CommandFailure("the process that held '\(HumanText.printable(source))' ended before a sample was taken") }
        return history
    }
}

/// The file that a picture goes to.
enum PictureFile {
    /// Throws where it can't be written, before anything was done for it.
    static func check(_ file: String, isNot recording: String? = nil) throws {
        guard file != "-" else { return }
        if let recording, Self.isSame(file, recording) {
            throw CommandFailure("\(HumanText.printable(file)) is the recording; give the picture another name by --out", status: ExitStatus.usage)
        }
        var status = stat()
        if stat(file, &status) == 0 {
            guard status.st_mode & S_IFMT != S_IFDIR else { throw CommandFailure("\(HumanText.printable(file)) is a folder", status: ExitStatus.usage) }
            guard access(file, W_OK) == 0 else { throw failure(file) }
            return
        }
        let folder = URL(fileURLWithPath: file).deletingLastPathComponent().path
        guard access(folder, W_OK | X_OK) == 0 else { throw failure(file) }
    }

    private static func isSame(_ a: String, _ b: String) -> Bool {
        var (first, second) = (stat(), stat())
        guard stat(a, &first) == 0, stat(b, &second) == 0 else { return false }
        return first.st_dev == second.st_dev && first.st_ino == second.st_ino
    }

    /// Replaces what was there only once all of it is written; a device or a pipe is written to.
    static func write(_ text: String, to file: String) throws {
        guard file != "-" else { return try StandardOutput.write(text) }
        var status = stat()
        let isSpecial = stat(file, &status) == 0 && status.st_mode & S_IFMT != S_IFREG
        do {
            try Data(text.utf8).write(to: URL(fileURLWithPath: file), options: isSpecial ? [] : .atomic)
        } catch {
            throw failure(file)
        }
    }

    private static func failure(_ file: String) -> CommandFailure {
        CommandFailure("\(HumanText.printable(file)): \(errno == 0 ? "it can't be written" : String(cString: strerror(errno)))")
    }
}
