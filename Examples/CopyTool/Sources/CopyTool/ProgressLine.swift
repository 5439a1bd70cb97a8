import Foundation
import Synchronization

/// One line that tells how far the work is, on a terminal; silent elsewhere.
final class ProgressLine: Sendable {
    private struct State {
        var done: UInt64 = 0
        var shownAt: ContinuousClock.Instant?
    }

    private let verb: String
    private let byteCount: UInt64
    private let begin = ContinuousClock.now
    private let isShown = isatty(STDERR_FILENO) == 1
    private let state = Mutex(State())

    init(_ verb: String, byteCount: UInt64) {
        self.verb = verb
        self.byteCount = byteCount
    }

    func advance(by count: Int) {
        state.withLock { state in
            state.done += UInt64(count)
            let now = ContinuousClock.now
            if isShown, state.shownAt.map({ now - $0 > .milliseconds(100) }) ?? true {
                state.shownAt = now
                show(state.done)
            }
        }
    }

    func finish() {
        guard isShown else { return }
        show(byteCount)
        FileHandle.standardError.write(Data("\n".utf8))
    }

    private func show(_ done: UInt64) {
        let percent = byteCount == 0 ? 100 : done * 100 / byteCount
        let seconds = (ContinuousClock.now - begin) / .seconds(1)
        let line = "\r\(verb)  \(done >> 20) of \(byteCount >> 20) MiB  \(percent)%  \(Int(Double(done) / 1e6 / max(seconds, 1e-3))) MB/s\u{1B}[K"
        FileHandle.standardError.write(Data(line.utf8))
    }
}
