import Foundation
import MPIO

/// A recording that can't be read, with the place.
struct BadRecording: Error, Equatable, CustomStringConvertible {
    var file: String
    /// From 1; nil where it is about the whole file.
    var line: Int?
    var message: String

    var description: String {
        let place = line.map { "\(file):\($0)" } ?? file
        return HumanText.printable("\(place): \(message)")
    }
}

/// Reads what ``Recorder`` wrote, or what claims to be that: nothing in it is believed.
struct RecordingReader {
    /// A sample of some ten thousand paths is not longer.
    static let maximumLineByteCount = 64 << 20

    let file: String
    private(set) var histories: [LUNHistory] = []
    /// What was left out, for people.
    private(set) var warning: String?
    private var places: [String: Int] = [:]
    private var header: RecordingHeader?
    private var wallOffset: Double?
    /// Events that came before any sample did, so that their moments are not known yet.
    private var early: [Line] = []

    init(file: String) {
        self.file = file
    }

    /// Reads a file from beginning to end.
    /// - Throws: ``BadRecording``.
    static func read(_ file: String, maximumLineByteCount: Int = Self.maximumLineByteCount) throws -> RecordingReader {
        var reader = RecordingReader(file: file)
        var lines = LinesOfFile(file, maximumByteCount: maximumLineByteCount)
        defer { lines.close() }
        while let line = try lines.next() {
            do {
                try reader.take(line.bytes, number: line.number)
            } catch is BadRecording where !line.isEnded && reader.header != nil {
                // The last one, and without its end: the machine stopped, or the disk was full.
                reader.warning = HumanText.printable("\(file):\(line.number): the last line is cut short and left out")
            }
        }
        guard reader.header != nil else { throw BadRecording(file: file, message: "the file is empty") }
        return reader
    }

    // MARK: Lines

    /// All that a line can be; only what is drawn is read.
    private struct Line: Decodable {
        var recording: Int?
        var at: String?
        var clockSeconds: Double?
        var luns: [LUN]?
        // An event.
        var kind: String?
        var lun: String?
        var path: String?
        var message: String?
        // The header.
        var everySeconds: Double?
        var command: String?

        enum CodingKeys: String, CodingKey {
            case recording, at, luns, kind, lun, path, message, command
            case clockSeconds = "clock_s"
            case everySeconds = "every_s"
        }

        init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: CodingKeys.self)
            recording = try values.decodeIfPresent(Int.self, forKey: .recording)
            at = try values.decodeIfPresent(String.self, forKey: .at)
            everySeconds = try values.decodeIfPresent(Double.self, forKey: .everySeconds)
            command = try values.decodeIfPresent(String.self, forKey: .command)
            // In the header it is a list of names.
            guard recording == nil else { return }
            clockSeconds = try values.decodeIfPresent(Double.self, forKey: .clockSeconds)
            luns = try values.decodeIfPresent([LUN].self, forKey: .luns)
            kind = try values.decodeIfPresent(String.self, forKey: .kind)
            lun = try values.decodeIfPresent(String.self, forKey: .lun)
            path = try values.decodeIfPresent(String.self, forKey: .path)
            message = try values.decodeIfPresent(String.self, forKey: .message)
        }
    }

    private struct LUN: Decodable {
        struct Holder: Decodable { var pid: Int32 }

        var name: String
        var policy: String
        var clockSeconds: Double?
        var holder: Holder?
        var paths: [Path]

        enum CodingKeys: String, CodingKey {
            case name, policy, holder, paths
            case clockSeconds = "clock_s"
        }
    }

    private struct Path: Decodable {
        struct Latency: Decodable { var p99: Double? }

        var id: String
        var requests: UInt64
        var bytesRead: UInt64
        var bytesWritten: UInt64
        var latency: Latency?

        enum CodingKeys: String, CodingKey {
            case id, requests
            case bytesRead = "bytes_read"
            case bytesWritten = "bytes_written"
            case latency = "interval_latency_us"
        }
    }

    /// Takes one line, without its end.
    /// - Throws: ``BadRecording`` with the line's number.
    mutating func take(_ bytes: [UInt8], number: Int) throws {
        let file = file
        func bad(_ message: String) -> BadRecording { BadRecording(file: file, line: number, message: message) }
        let line: Line
        do {
            line = try JSONDecoder().decode(Line.self, from: Data(bytes))
        } catch let error as DecodingError {
            throw bad(header == nil ? "not a recording of 'mpio paths --record'" : error.words)
        }
        guard header != nil else { return header = try takeHeader(line, bad) }
        if line.recording != nil { throw bad("another recording begins here; plot one at a time") }
        if let luns = line.luns { return try take(luns, of: line, bad) }
        guard line.kind != nil else { throw bad("neither a sample (no 'luns') nor an event (no 'kind')") }
        guard wallOffset != nil else { return early.append(line) }
        try take(event: line, bad)
    }

    private func takeHeader(_ line: Line, _ bad: (String) -> BadRecording) throws -> RecordingHeader {
        guard let version = line.recording else { throw bad("not a recording of 'mpio paths --record'") }
        guard version == RecordingHeader.currentVersion else {
            throw bad("a recording of version \(version); this mpio reads version \(RecordingHeader.currentVersion)")
        }
        return RecordingHeader(
            recording: version, at: line.at ?? "", everySeconds: line.everySeconds ?? 0, luns: [], command: line.command ?? "")
    }

    private mutating func take(_ luns: [LUN], of line: Line, _ bad: (String) -> BadRecording) throws {
        guard let at = line.at.flatMap(Timestamp.parse)?.timeIntervalSince1970, let clock = line.clockSeconds,
            Self.isMoment(clock), Self.isMoment(at)
        else { throw bad("a sample without its moment ('at', 'clock_s')") }
        wallOffset = at - clock
        for lun in luns {
            let seconds = lun.clockSeconds ?? clock
            guard Self.isMoment(seconds) else { throw bad("'clock_s' of \(lun.name) is no moment") }
            if places[lun.name] == nil {
                places[lun.name] = histories.count
                histories.append(LUNHistory(name: lun.name, policy: lun.policy, wallOffset: at - clock))
            }
            let place = places[lun.name]!
            for path in lun.paths {
                let p99 = path.latency?.p99.flatMap { $0.isFinite && $0 > 0 ? $0 : nil }
                let point = LUNHistory.Point(
                    seconds: seconds, requests: path.requests, bytes: path.bytesRead &+ path.bytesWritten, p99Microseconds: p99)
                guard histories[place].add(point, path: path.id, holder: lun.holder?.pid ?? 0) else {
                    throw bad("time goes backwards in \(lun.name)")
                }
            }
        }
        let waiting = early
        early = []
        for event in waiting { try take(event: event, bad) }
    }

    /// A hundred thousand years.
    private static func isMoment(_ seconds: Double) -> Bool { seconds.isFinite && seconds >= 0 && seconds < 3e12 }

    private mutating func take(event line: Line, _ bad: (String) -> BadRecording) throws {
        guard let lun = line.lun, let kind = line.kind, let message = line.message else {
            throw bad("an event without 'lun' or 'message'")
        }
        guard let at = line.at.flatMap(Timestamp.parse)?.timeIntervalSince1970, Self.isMoment(at) else {
            throw bad("an event without its moment ('at')")
        }
        // Events of a LUN that no sample has are of no use.
        guard let place = places[lun], let wallOffset else { return }
        histories[place].events.append(.init(seconds: at - wallOffset, kind: kind, path: line.path, message: message))
    }
}

extension DecodingError {
    /// What is wrong with a line of JSON.
    fileprivate var words: String {
        func place(_ path: [any CodingKey]) -> String {
            path.reduce("") { text, key in key.intValue.map { text + "[\($0)]" } ?? (text.isEmpty ? key.stringValue : text + "." + key.stringValue) }
        }
        func within(_ context: Context) -> String {
            let text = place(context.codingPath)
            return text.isEmpty ? "" : "'\(text)' "
        }
        switch self {
        case .keyNotFound(let key, let context): return "'\(place(context.codingPath + [key]))' is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context): return within(context) + "is of another type than it should be"
        case .dataCorrupted(let context) where !context.codingPath.isEmpty: return within(context) + "is out of range"
        // Of a number that does not fit, Foundation says no more than of what is not JSON at all.
        default: return "not JSON, or a number in it is out of range"
        }
    }
}

/// A file's lines, however long the file is; a line of more than so many bytes is refused.
struct LinesOfFile {
    struct Line {
        var bytes: [UInt8]
        var number: Int
        /// False for a last line without its end.
        var isEnded: Bool
    }

    private let file: String
    private let maximumByteCount: Int
    private var descriptor: Int32 = -1
    private var buffer: [UInt8] = []
    private var searched = 0
    private var number = 0
    private var isAtEnd = false

    init(_ file: String, maximumByteCount: Int) {
        self.file = file
        self.maximumByteCount = maximumByteCount
    }

    mutating func close() {
        if descriptor >= 0 { Foundation.close(descriptor) }
        descriptor = -1
    }

    /// The next line that is not empty; nil at the end.
    mutating func next() throws -> Line? {
        while let line = try nextOfAll() {
            if !line.bytes.isEmpty { return line }
        }
        return nil
    }

    private mutating func nextOfAll() throws -> Line? {
        let tooLong = BadRecording(file: file, line: number + 1, message: "the line is longer than \(maximumByteCount) bytes")
        while true {
            if let end = buffer[searched...].firstIndex(of: 0x0A) {
                guard end <= maximumByteCount else { throw tooLong }
                let line = Array(buffer[..<end])
                buffer.removeSubrange(...end)
                searched = 0
                number += 1
                return Line(bytes: line, number: number, isEnded: true)
            }
            searched = buffer.count
            guard buffer.count <= maximumByteCount else { throw tooLong }
            if isAtEnd {
                guard !buffer.isEmpty else { return nil }
                defer { buffer = []; searched = 0 }
                number += 1
                return Line(bytes: buffer, number: number, isEnded: false)
            }
            try fill()
        }
    }

    private mutating func fill() throws {
        if descriptor < 0 {
            descriptor = open(file, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw BadRecording(file: file, message: String(cString: strerror(errno))) }
        }
        var chunk = [UInt8](repeating: 0, count: 1 << 18)
        let count = read(descriptor, &chunk, chunk.count)
        if count < 0 {
            guard errno != EINTR else { return }
            throw BadRecording(file: file, message: String(cString: strerror(errno)))
        }
        isAtEnd = count == 0
        buffer.append(contentsOf: chunk[..<count])
    }
}
