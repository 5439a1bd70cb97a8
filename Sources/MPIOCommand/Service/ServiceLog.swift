import ArgumentParser
import Foundation
import Logging
import MPIO

/// How a service writes its log.
struct LogOptions: ParsableArguments {
    enum Format: String, ExpressibleByArgument, CaseIterable {
        /// Lines for people.
        case text
        /// With the priorities of sd-daemon(3), which the journal takes off.
        case journal
    }

    @Option(help: "How log lines look: text, or journal, which is usual where systemd reads them.")
    var logFormat: Format?

    @Option(
        help: ArgumentHelp("The least important lines that are shown: trace, debug, info, notice, warning, error or critical.", valueName: "level"),
        completion: .list(Logger.Level.allCases.map(\.rawValue)))
    var logLevel = "info"

    func validate() throws {
        guard Logger.Level(rawValue: logLevel) == nil else { return }
        throw ValidationError("--log-level '\(logLevel)' is none of \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")).")
    }

    func makeLogger() -> Logger {
        let format = logFormat ?? (Self.standardErrorIsTheJournal() ? .journal : .text)
        var logger = Logger(label: "mpio") { _ in StandardErrorLog(format: format) }
        logger.logLevel = Logger.Level(rawValue: logLevel) ?? .info
        return logger
    }

    /// systemd names the socket that standard error was connected to (systemd.exec(5), `$JOURNAL_STREAM`).
    static func standardErrorIsTheJournal(_ environment: [String: String] = ProcessInfo.processInfo.environment) -> Bool {
        var status = stat()
        guard let stream = environment["JOURNAL_STREAM"], fstat(STDERR_FILENO, &status) == 0 else { return false }
        return stream == "\(status.st_dev):\(status.st_ino)"
    }
}

/// Lines on standard error; nothing that a device or peer said can begin another line or steer a terminal.
struct StandardErrorLog: LogHandler {
    let format: LogOptions.Format
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.MetadataValue? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        StandardError.write(Self.line(event.level, "\(event.message)", format))
    }

    static func line(_ level: Logger.Level, _ message: String, _ format: LogOptions.Format) -> String {
        let words = HumanText.printable(message.replacing("\n", with: "; "))
        switch format {
        case .journal: return "<\(priority(level))>\(words)\n"
        case .text: return (level >= .warning ? "\(level.rawValue): " : "") + words + "\n"
        }
    }

    /// syslog(3).
    private static func priority(_ level: Logger.Level) -> Int {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}

extension EventRecord {
    /// How much an event matters to whoever reads a log.
    static func level(ofKind kind: String) -> Logger.Level {
        switch kind {
        case "all-paths-lost", "remove-period-expired", "lun-failed": .error
        case "path-lost", "path-refused", "path-marginal", "path-stalled", "path-slow", "guard-raised", "fence-failed", "fail-over",
            "connection-lost", "request-timed-out":
            .warning
        case "queue-shrunk", "transition-requested", "notice": .debug
        default: .info
        }
    }
}
