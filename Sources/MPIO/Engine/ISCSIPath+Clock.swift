package import AsyncIO
import ISCSI
import Multipath
import Timebase

// One timer for all that a session waits for.
extension ISCSIPath: TimerHandler {
    package func timerFired(_ timer: TimerID, token: UInt64) {
        self.timer = nil
        let now = port.now
        if now >= connectDeadline, case .connecting = state {
            return leadingFailed(PathFailure(.connectTimedOut), closing: .reset)
        }
        if let group {
            group.timerFired(at: now)
        } else if session.nextDeadline <= now, let socket = socketInUse {
            let health = port.transportHealth(of: socket).map(TransportReport.init)
            session.timerFired(at: now) { _ in health }
        }
        pump()
        rearmTimer()
    }

    /// Keeps one timer, set no later than needed. A later deadline is not worth moving the timer for:
    /// it fires, finds nothing to do, and is set anew; so the hot path touches no timer.
    func rearmTimer() {
        guard socketInUse != nil else { return }
        var deadline = min(session.nextDeadline, connectDeadline)
        if let group { deadline = min(deadline, group.nextDeadline) }
        if let timer {
            guard deadline < timer.deadline else { return }
            port.cancelTimer(timer.id)
            self.timer = nil
        }
        guard deadline < .distantFuture else { return }
        timer = (port.setTimer(at: deadline, handler: self, token: 0), deadline)
    }
}
