import Foundation
import MPIO

/// `mpio paths --watch` on a terminal.
struct PathsWatch {
    let period: Duration
    let render: @Sendable (PathsReport) -> String
    /// Given what is shown, and to call with what is known before the look has ended.
    let look: @Sendable (_ shown: PathsReport, _ early: (PathsReport) throws -> Void) async throws -> PathsReport

    /// Returns when the task is cancelled, or `q` was typed.
    func run() async throws {
        guard let terminal = RawTerminal() else { return try await runWithoutKeys() }
        // The other screen, no cursor; the ends of lines don't wrap.
        try StandardOutput.write("\u{1B}[?1049h\u{1B}[?25l\u{1B}[?7l")
        defer {
            try? StandardOutput.write("\u{1B}[?7h\u{1B}[?25h\u{1B}[?1049l")
            terminal.restore()
        }
        let screen = WatchScreen(size: { Terminal.size() ?? (80, 24) }) { try StandardOutput.write($0) }
        var report = try await look(PathsReport()) { try screen.show(render($0)) }
        var typed: [UInt8] = []
        while !Task.isCancelled {
            try screen.show(render(report))
            let next = ContinuousClock.now + period
            var size = Terminal.size() ?? (80, 24)
            while ContinuousClock.now < next, !Task.isCancelled {
                typed += terminal.read(within: 50)
                if try screen.handle(WatchScreen.keys(&typed)) { return }
                let now = Terminal.size() ?? (80, 24)
                guard now != size else { continue }
                // The window was resized: the tables fit themselves to it.
                size = now
                try StandardOutput.write("\u{1B}[2J")
                try screen.show(render(report))
            }
            if Task.isCancelled { return }
            report = try await look(report) { try screen.show(render($0)) }
        }
    }

    /// Standard input is something else: nobody can type.
    private func runWithoutKeys() async throws {
        while !Task.isCancelled {
            let report = try await look(PathsReport()) { _ in }
            try StandardOutput.write("\u{1B}[H\u{1B}[2J" + render(report))
            try? await Task.sleep(for: period)
        }
    }
}
