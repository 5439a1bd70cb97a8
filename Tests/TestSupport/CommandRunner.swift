import Foundation

/// What a program printed and how it ended.
public struct CommandResult: Sendable {
    public let end: ProcessEnd
    public let standardOutputBytes: [UInt8]
    public let standardErrorBytes: [UInt8]

    public var standardOutput: String { String(decoding: standardOutputBytes, as: UTF8.self) }
    public var standardError: String { String(decoding: standardErrorBytes, as: UTF8.self) }
    public var succeeded: Bool { end == .exited(0) }
    /// The exit status; nil where a signal ended the program.
    public var exitStatus: Int32? {
        if case .exited(let status) = end { status } else { nil }
    }
}

/// Why a program did not do what the test asked of it.
public enum CommandFailure: Error, CustomStringConvertible {
    case timedOut(command: String, after: Duration, standardError: String)
    case failed(command: String, end: ProcessEnd, output: String)

    public var description: String {
        switch self {
        case .timedOut(let command, let after, let text): "\(command): no end after \(after)\n\(text)"
        case .failed(let command, let end, let output): "\(command): \(end)\n\(output)"
        }
    }
}

/// Runs a program to its end: arguments as they are, no shell, no terminal.
public enum CommandRunner {
    /// Runs `program` (a name that ``Tool`` finds, or a path) without blocking the caller's thread.
    /// - Parameters:
    ///   - environment: added to this process's own, replacing equal names.
    ///   - standardInput: bytes for its standard input, which is `/dev/null` otherwise.
    /// - Returns: whatever the exit status; ask ``CommandResult/succeeded``.
    /// - Throws: ``MissingTool``, ``SystemError``, or ``CommandFailure/timedOut(command:after:standardError:)`` after
    ///   the program was killed.
    public static func run(
        _ program: String, _ arguments: [String] = [], environment: [String: String] = [:],
        standardInput: [UInt8]? = nil, timeout: Duration = .seconds(30)
    ) async throws -> CommandResult {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(
                    with: Result {
                        try runBlocking(
                            program, arguments, environment: environment, standardInput: standardInput,
                            timeout: timeout)
                    })
            }
        }
    }

    /// As ``run(_:_:environment:standardInput:timeout:)``, on the caller's thread.
    public static func runBlocking(
        _ program: String, _ arguments: [String] = [], environment: [String: String] = [:],
        standardInput: [UInt8]? = nil, timeout: Duration = .seconds(30)
    ) throws -> CommandResult {
        let executable = program.contains("/") ? program : try Tool.path(program)
        let output = try Pipe()
        let error = try Pipe()
        let input = try standardInput.map { try ProcessDirectory.shared.file("stdin", contents: $0) }
        defer { if let input { unlink(input) } }
        let child = try ChildProcess(
            executable: executable, arguments: arguments, environment: environment,
            standardInput: input ?? "/dev/null", standardOutput: .descriptor(output.writeEnd),
            standardError: .descriptor(error.writeEnd))
        output.closeWriteEnd()
        error.closeWriteEnd()

        let deadline = ContinuousClock.now + timeout
        var end: ProcessEnd?
        repeat {
            // A grandchild may keep a pipe open: the program's own end is what counts.
            end = child.poll()
            var descriptors = [output.pollEntry, error.pollEntry].filter { $0.fd >= 0 }
            if end == nil {
                if descriptors.isEmpty { end = child.wait(timeout: .milliseconds(20)) }
                else { Glibc.poll(&descriptors, nfds_t(descriptors.count), 20) }
            }
            output.drain()
            error.drain()
        } while end == nil && ContinuousClock.now < deadline
        guard let end else {
            child.killAndWait()
            throw CommandFailure.timedOut(
                command: describe(program, arguments), after: timeout,
                standardError: String(decoding: error.bytes, as: UTF8.self))
        }
        return CommandResult(end: end, standardOutputBytes: output.bytes, standardErrorBytes: error.bytes)
    }

    /// Runs `program` and insists that it succeeds.
    /// - Throws: also ``CommandFailure/failed(command:end:output:)``, with all that the program printed.
    @discardableResult
    public static func require(
        _ program: String, _ arguments: [String] = [], environment: [String: String] = [:],
        timeout: Duration = .seconds(30)
    ) async throws -> CommandResult {
        try check(
            await run(program, arguments, environment: environment, timeout: timeout), program, arguments)
    }

    /// As ``require(_:_:environment:timeout:)``, on the caller's thread.
    @discardableResult
    public static func requireBlocking(
        _ program: String, _ arguments: [String] = [], environment: [String: String] = [:],
        timeout: Duration = .seconds(30)
    ) throws -> CommandResult {
        try check(
            runBlocking(program, arguments, environment: environment, timeout: timeout), program, arguments)
    }

    private static func check(
        _ result: CommandResult, _ program: String, _ arguments: [String]
    ) throws -> CommandResult {
        guard result.succeeded else {
            throw CommandFailure.failed(
                command: describe(program, arguments), end: result.end,
                output: result.standardOutput + result.standardError)
        }
        return result
    }

    private static func describe(_ program: String, _ arguments: [String]) -> String {
        ([program] + arguments).joined(separator: " ")
    }
}

/// One output of a child, collected without ever blocking on it.
private final class Pipe {
    private(set) var readEnd: Int32
    private(set) var writeEnd: Int32
    private(set) var bytes: [UInt8] = []

    init() throws {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw SystemError(call: "pipe") }
        (readEnd, writeEnd) = (ends[0], ends[1])
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        _ = fcntl(readEnd, F_SETFL, O_NONBLOCK)
    }

    deinit {
        closeWriteEnd()
        if readEnd >= 0 { close(readEnd) }
    }

    var pollEntry: pollfd { pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0) }

    func closeWriteEnd() {
        if writeEnd >= 0 { close(writeEnd) }
        writeEnd = -1
    }

    func drain() {
        guard readEnd >= 0 else { return }
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(readEnd, &chunk, chunk.count)
            if count > 0 { bytes.append(contentsOf: chunk[0..<count]); continue }
            if count < 0 && (errno == EAGAIN || errno == EINTR) { return }
            close(readEnd)
            readEnd = -1
            return
        }
    }
}
