/// QEMU's own iSCSI initiator (`qemu-io`, `qemu-img` with Debian's `qemu-block-extra`) on one disk, as a peer that
/// knows nothing of mpio.
public struct QemuIO: Sendable {
    /// An `iscsi://` URL, or the path of a raw file.
    public let location: String
    public var timeout: Duration = .seconds(60)

    public init(_ location: String) {
        self.location = location
    }

    /// Writes `byteCount` bytes of value `pattern` at `offset`, and flushes.
    public func write(pattern: UInt8, at offset: UInt64, byteCount: UInt64) async throws {
        try await run(["write -P \(pattern) \(offset) \(byteCount)", "flush"])
    }

    /// Reads and insists that every byte has value `pattern`.
    /// - Throws: ``CommandFailure/failed(command:end:output:)`` with QEMU's words where one has not.
    public func verify(pattern: UInt8, at offset: UInt64, byteCount: UInt64) async throws {
        try await run(["read -P \(pattern) \(offset) \(byteCount)"])
    }

    /// Runs `qemu-io` commands one after the other in one session.
    @discardableResult
    public func run(_ commands: [String]) async throws -> String {
        let arguments = ["-f", "raw"] + commands.flatMap { ["-c", $0] } + [location]
        let result = try await CommandRunner.require("qemu-io", arguments, timeout: timeout)
        // qemu-io reports some failures only in words and still exits with 0.
        let output = result.standardOutput + result.standardError
        if output.contains("failed") || output.contains("error") {
            throw CommandFailure.failed(command: "qemu-io \(location)", end: result.end, output: output)
        }
        return result.standardOutput
    }

    /// Copies all of this disk into the file at `path`.
    public func copy(toFile path: String) async throws {
        try await CommandRunner.require(
            "qemu-img", ["convert", "-f", "raw", "-O", "raw", location, path], timeout: timeout)
    }

    /// Copies the file at `path` onto this disk, which must be as large.
    public func copy(fromFile path: String) async throws {
        try await CommandRunner.require(
            "qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", path, location], timeout: timeout)
    }

    /// Insists that this disk and `other` (a URL or a path) hold the same bytes.
    public func compare(with other: String) async throws {
        try await CommandRunner.require(
            "qemu-img", ["compare", "-s", "-f", "raw", "-F", "raw", location, other], timeout: timeout)
    }
}
