import Foundation
import MPIO

/// Writes a recording's lines, each with one call as soon as it is there: whatever ends the process, the file holds whole
/// lines. Used by several threads.
final class RecordingWriter: @unchecked Sendable {
    struct Counts: Equatable, Sendable {
        var samples = 0
        var events = 0
    }

    let file: String
    private let descriptor: Int32
    private let lock = NSLock()
    private var counted = Counts()
    private var problem: CommandFailure?

    /// Makes the file, for its owner and group to read. One that is there already is left alone.
    init(_ file: String, header: RecordingHeader) throws {
        self.file = file
        descriptor = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else {
            if errno == EEXIST {
                throw CommandFailure("\(HumanText.printable(file)) exists; remove it or record into another file", status: ExitStatus.usage)
            }
            throw CommandFailure("\(HumanText.printable(file)): \(String(cString: strerror(errno)))")
        }
        write(header)
        if let problem { throw problem }
    }

    deinit { close(descriptor) }

    /// For tests: writes go there from now on.
    func redirect(to other: Int32) { _ = lock.withLock { dup2(other, descriptor) } }

    var counts: Counts { lock.withLock { counted } }
    /// Why nothing is written any more.
    var failure: CommandFailure? { lock.withLock { problem } }

    func sample(_ luns: [LUNSnapshot]) {
        write(RecordedSample(luns: luns)) { $0.samples += 1 }
    }

    func event(_ record: EventRecord) {
        write(record) { $0.events += 1 }
    }

    private func write(_ line: some Encodable, _ count: (inout Counts) -> Void = { _ in }) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        lock.withLock {
            guard problem == nil else { return }
            do {
                let bytes = Array(try encoder.encode(line)) + [0x0A]
                try bytes.withUnsafeBytes { try writeAll($0, to: descriptor) }
                count(&counted)
            } catch let error as POSIXError {
                problem = CommandFailure("\(HumanText.printable(file)): \(String(cString: strerror(error.code.rawValue)))")
            } catch {
                problem = CommandFailure("\(HumanText.printable(file)): \(error)")
            }
        }
    }
}
