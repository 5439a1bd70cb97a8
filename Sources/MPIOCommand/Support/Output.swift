import Foundation
import MPIO

/// The reader of standard output has gone: nobody is left to tell.
struct OutputClosed: Error {}

enum StandardOutput {
    static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

    static func write(_ text: String) throws {
        try write(Array(text.utf8))
    }

    static func write(_ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try write($0) }
    }

    static func write(_ bytes: UnsafeRawBufferPointer) throws {
        try writeAll(bytes, to: STDOUT_FILENO)
    }

    /// A value as JSON on lines of its own, or on one where `compact`.
    static func writeJSON(_ value: some Encodable, compact: Bool = false) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = compact ? [.sortedKeys, .withoutEscapingSlashes] : [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
        try write(Array(encoder.encode(value)) + [0x0A])
    }
}

enum StandardError {
    static var isTerminal: Bool { isatty(STDERR_FILENO) == 1 }

    /// What can't be said there can't be said at all.
    static func write(_ text: String) {
        let bytes = Array(text.utf8)
        bytes.withUnsafeBytes { _ = try? writeAll($0, to: STDERR_FILENO) }
    }
}

func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) throws {
    var written = 0
    while written < bytes.count {
        let count = write(descriptor, bytes.baseAddress! + written, bytes.count - written)
        if count >= 0 {
            written += count
        } else if errno == EPIPE {
            throw OutputClosed()
        } else if errno == EAGAIN {
            // Somebody made the pipe non-blocking.
            var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            poll(&entry, 1, -1)
        } else if errno != EINTR {
            throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO)
        }
    }
}

/// How text may look on standard output.
enum Terminal {
    /// Colour on a terminal only, and never with NO_COLOR (no-color.org: set and not empty) or TERM=dumb.
    static func style(
        isTerminal: Bool = StandardOutput.isTerminal, environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> TextStyle {
        guard isTerminal else { return TextStyle() }
        let isPlain = !(environment["NO_COLOR"] ?? "").isEmpty || environment["TERM"] == "dumb"
        return TextStyle(usesColour: !isPlain, width: size()?.columns)
    }

    static func size(_ descriptor: Int32 = STDOUT_FILENO) -> (columns: Int, rows: Int)? {
        var window = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &window) == 0, window.ws_col > 0 else { return nil }
        return (Int(window.ws_col), Int(window.ws_row))
    }
}
