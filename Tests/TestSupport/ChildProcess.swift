public import Foundation

/// A system call that failed while a test set up its surroundings.
public struct SystemError: Error, CustomStringConvertible {
    public let call: String
    public let code: Int32
    public var description: String { "\(call): \(String(cString: strerror(code)))" }

    /// With `errno` as it stands.
    public init(call: String) {
        self.init(call: call, code: errno)
    }

    public init(call: String, code: Int32) {
        self.call = call
        self.code = code
    }
}

/// How a child process ended.
public enum ProcessEnd: Hashable, Sendable {
    case exited(Int32)
    case signalled(Int32)

    init(waitStatus: Int32) {
        let signal = waitStatus & 0x7f
        self = signal == 0 ? .exited((waitStatus >> 8) & 0xff) : .signalled(signal)
    }
}

/// A child process that cannot outlive the tests.
///
/// The kernel kills it when this process dies however that happens, `atexit` kills it when this process ends in
/// order, `deinit` when its owner lets go. Signals go to the process by its id only while it has not been waited
/// for, so an id that the kernel reused is never hit.
public final class ChildProcess: Sendable {
    /// Where standard output or standard error goes.
    public enum Sink: Sendable {
        case discard
        case file(String)
        case descriptor(Int32)
    }

    public let identifier: pid_t
    private let end = Locked<ProcessEnd?>(nil)

    /// Starts `executable` (an absolute path) with `arguments`, no shell between. It gets its own process group,
    /// default signal handling, and no descriptor but 0, 1 and 2.
    public init(
        executable: String, arguments: [String], environment: [String: String] = [:],
        standardInput: String = "/dev/null", standardOutput: Sink = .discard, standardError: Sink = .discard
    ) throws {
        let keeper = try Tool.path("setpriv")
        let line = [keeper, "--pdeathsig", "KILL", "--", executable] + arguments
        identifier = try Spawner.shared.spawn(
            line, environment: environment, input: standardInput, output: standardOutput, error: standardError)
        LiveProcesses.shared.insert(identifier)
    }

    deinit {
        killAndWait()
    }

    /// Sends `signal`; false where the process has already ended and been waited for.
    @discardableResult
    public func send(signal: Int32) -> Bool {
        end.withLock { $0 == nil && kill(identifier, signal) == 0 }
    }

    /// Whether it handles `signal` by now: before that, the signal just ends it.
    public func catches(signal: Int32) -> Bool {
        guard let status = try? String(contentsOfFile: "/proc/\(identifier)/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("SigCgt:") }),
            let mask = UInt64(line.dropFirst(7).drop { $0 == "\t" }, radix: 16)
        else { return false }
        return mask & 1 << UInt64(signal - 1) != 0
    }

    /// How it ended, or nil while it runs. Does not block.
    public func poll() -> ProcessEnd? {
        end.withLock { end in
            if end == nil {
                var status: Int32 = 0
                // Answers only once every thread of the process is gone, and its sockets with them.
                if waitpid(identifier, &status, WNOHANG) == identifier {
                    end = ProcessEnd(waitStatus: status)
                    LiveProcesses.shared.remove(identifier)
                }
            }
            return end
        }
    }

    public var isRunning: Bool { poll() == nil }

    /// Waits for the end, at most `timeout`; nil where it still runs then.
    @discardableResult
    public func wait(timeout: Duration) -> ProcessEnd? {
        let deadline = ContinuousClock.now + timeout
        var pause: UInt32 = 200
        while true {
            if let end = poll() { return end }
            if ContinuousClock.now >= deadline { return nil }
            usleep(pause)
            pause = min(pause * 2, 10_000)
        }
    }

    /// SIGKILL, which also ends a stopped process, and a wait until all its threads are gone.
    public func killAndWait() {
        guard poll() == nil else { return }
        send(signal: SIGKILL)
        wait(timeout: .seconds(10))
    }
}

/// Starts every child from one thread that lives as long as the process: the parent-death signal is tied to the
/// *thread* that forked, and the threads of a pool come and go.
private final class Spawner: @unchecked Sendable {
    static let shared = Spawner()

    private let condition = NSCondition()
    private var jobs: [() -> Void] = []

    private init() {
        let thread = Thread { [unowned self] in
            while true {
                condition.lock()
                while jobs.isEmpty { condition.wait() }
                let job = jobs.removeFirst()
                condition.unlock()
                job()
            }
        }
        thread.name = "spawner"
        thread.start()
    }

    func spawn(
        _ line: [String], environment: [String: String], input: String, output: ChildProcess.Sink,
        error: ChildProcess.Sink
    ) throws -> pid_t {
        let outcome = Locked<Result<pid_t, SystemError>?>(nil)
        let done = DispatchSemaphore(value: 0)
        condition.lock()
        jobs.append {
            let result = Self.posixSpawn(
                line, environment: environment, input: input, output: output, error: error)
            outcome.withLock { $0 = result }
            done.signal()
        }
        condition.signal()
        condition.unlock()
        done.wait()
        guard let result = outcome.withLock({ $0 }) else { preconditionFailure("the spawner did not answer") }
        return try result.get()
    }

    private static func posixSpawn(
        _ line: [String], environment: [String: String], input: String, output: ChildProcess.Sink,
        error: ChildProcess.Sink
    ) -> Result<pid_t, SystemError> {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0)
        add(output, as: 1, to: &actions)
        add(error, as: 2, to: &actions)
        // A listening socket that leaked into tgtd would keep the port of a closed server alive.
        posix_spawn_file_actions_addclosefrom_np(&actions, 3)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
        posix_spawnattr_setflags(&attributes, Int16(flags))

        let merged = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        let variables = merged.map { "\($0.key)=\($0.value)" }
        var identifier = pid_t()
        let code = withCStrings(line) { argv in
            withCStrings(variables) { envp in
                posix_spawn(&identifier, line[0], &actions, &attributes, argv, envp)
            }
        }
        return code == 0 ? .success(identifier) : .failure(SystemError(call: "posix_spawn \(line[0])", code: code))
    }

    private static func add(
        _ sink: ChildProcess.Sink, as descriptor: Int32, to actions: inout posix_spawn_file_actions_t
    ) {
        switch sink {
        case .discard: posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_WRONLY, 0)
        case .file(let path):
            posix_spawn_file_actions_addopen(&actions, descriptor, path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        case .descriptor(let source): posix_spawn_file_actions_adddup2(&actions, source, descriptor)
        }
    }
}

private func withCStrings<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    let pointers = strings.map { strdup($0) } + [nil]
    defer { for pointer in pointers { free(pointer) } }
    return pointers.withUnsafeBufferPointer { body($0.baseAddress!) }
}

/// The children that still run, for the handler that kills them at exit.
private final class LiveProcesses: Sendable {
    static let shared = LiveProcesses()

    private let identifiers = Locked<Set<pid_t>>([])

    private init() {
        atexit {
            LiveProcesses.shared.identifiers.withLock { live in
                for identifier in live { kill(identifier, SIGKILL) }
                for identifier in live {
                    var status: Int32 = 0
                    waitpid(identifier, &status, 0)
                }
                live = []
            }
        }
    }

    func insert(_ identifier: pid_t) {
        identifiers.withLock { _ = $0.insert(identifier) }
    }

    func remove(_ identifier: pid_t) {
        identifiers.withLock { _ = $0.remove(identifier) }
    }
}
