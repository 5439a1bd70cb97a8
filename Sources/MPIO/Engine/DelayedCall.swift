import AsyncIO

/// A closure that a timer calls; rare things only. The port keeps it until then, so it should hold nothing that must end
/// sooner.
final class DelayedCall: TimerHandler {
    private let body: () -> Void

    init(_ body: @escaping () -> Void) { self.body = body }

    func timerFired(_ timer: TimerID, token: UInt64) { body() }
}
