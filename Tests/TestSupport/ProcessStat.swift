public import Foundation

/// What `/proc` tells about a process at one moment.
public struct ProcessStat: Sendable {
    public enum State: Character, Sendable {
        case running = "R"
        case sleeping = "S"
        case waitingForDisk = "D"
        case stopped = "T"
        case traced = "t"
        case zombie = "Z"
        case dead = "X"
        case idle = "I"
    }

    public let name: String
    public let state: State
    /// CPU time in user mode and in the kernel, of all threads, those that ended included. In steps of a clock tick
    /// (10 ms).
    public let userTime: Duration
    public let systemTime: Duration
    /// CPU time of the threads that live now, to the nanosecond.
    public let threadTime: Duration
    public let threadCount: Int
    public let residentByteCount: Int
    public let openFileCount: Int

    /// Reads them for process `identifier`; nil where there is no such process, or it may not be looked at.
    public init?(_ identifier: pid_t) {
        let directory = "/proc/\(identifier)"
        guard let text = readProcFile(directory + "/stat"), let nameStart = text.firstIndex(of: "("),
            let nameEnd = text.lastIndex(of: ")")
        else { return nil }
        // The name may hold blanks and brackets; the numbers start after the last bracket.
        let fields = text[text.index(after: nameEnd)...].split(whereSeparator: \.isWhitespace)
        guard fields.count > 21, let letter = fields[0].first, let state = State(rawValue: letter),
            let user = Int64(fields[11]), let system = Int64(fields[12]), let threads = Int(fields[17]),
            let pages = Int(fields[21]),
            let files = try? FileManager.default.contentsOfDirectory(atPath: directory + "/fd")
        else { return nil }
        let tick = Duration.nanoseconds(1_000_000_000 / Int64(max(sysconf(Int32(_SC_CLK_TCK)), 1)))
        name = String(text[text.index(after: nameStart)..<nameEnd])
        self.state = state
        userTime = tick * Int(user)
        systemTime = tick * Int(system)
        threadTime = Self.threadTime(directory)
        threadCount = threads
        residentByteCount = pages * Int(sysconf(Int32(_SC_PAGESIZE)))
        // The listing of one's own descriptors counts the one that reads it.
        openFileCount = identifier == getpid() ? files.count - 1 : files.count
    }

    /// Of the process that runs the tests.
    public static var current: ProcessStat {
        guard let stat = ProcessStat(getpid()) else { preconditionFailure("/proc is not mounted") }
        return stat
    }

    /// The ids of the processes that run under this name (at most 15 bytes are kept by the kernel).
    public static func identifiers(named name: String) -> [pid_t] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return entries.compactMap { pid_t($0) }.filter {
            readProcFile("/proc/\($0)/comm")?.trimmingCharacters(in: .newlines) == name
        }
    }

    private static func threadTime(_ directory: String) -> Duration {
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: directory + "/task")) ?? []
        let nanoseconds = threads.compactMap { thread in
            readProcFile("\(directory)/task/\(thread)/schedstat")?.split(separator: " ").first.flatMap { Int64($0) }
        }
        return .nanoseconds(nanoseconds.reduce(0, +))
    }
}

/// The whole of a file of `/proc`. It has no size to read by, and a read may give less than was asked for before the
/// end is reached: only a read of nothing is the end, which Foundation does not wait for.
func readProcFile(_ path: String) -> String? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = read(descriptor, &chunk, chunk.count)
        if count < 0 && errno == EINTR { continue }
        // ESRCH: the process ended meanwhile.
        guard count >= 0 else { return nil }
        guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
        bytes.append(contentsOf: chunk[0..<count])
    }
}
