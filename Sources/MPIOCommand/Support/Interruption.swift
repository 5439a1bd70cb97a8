import AsyncIO
import Dispatch
import Foundation

/// Runs `body` so that one of the signals cancels it, whereupon it can log out; a second one ends the process.
///
/// `body` begins once the signals are caught: one that comes before ends the process, and none is lost in between.
func cancelledByInterrupt<Result: Sendable>(
    signals: [Int32] = [SIGINT, SIGTERM, SIGHUP], _ body: @escaping @Sendable () async throws -> Result
) async throws -> Result {
    let interruption = Interruption()
    var sources: [any DispatchSourceSignal] = []
    for number in signals {
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler { interruption.strike(number) }
        await withCheckedContinuation { caught in
            source.setRegistrationHandler { caught.resume() }
            source.resume()
        }
        sources.append(source)
    }
    defer {
        for source in sources { source.cancel() }
        for number in signals { signal(number, SIG_DFL) }
    }
    let task = Task { try await body() }
    interruption.begin { task.cancel() }
    return try await task.value
}

/// What a signal does: nothing to be cancelled yet, to be cancelled, or cancelled already.
private final class Interruption: @unchecked Sendable {
    private let lock = Lock()
    private var cancel: (@Sendable () -> Void)?
    private var isStruck = false

    func begin(_ cancel: @escaping @Sendable () -> Void) {
        let isStruck = lock.withLock {
            self.cancel = cancel
            return self.isStruck
        }
        if isStruck { cancel() }
    }

    func strike(_ number: Int32) {
        let cancel = lock.withLock {
            if isStruck { _exit(128 + number) }
            isStruck = true
            return self.cancel
        }
        cancel?()
    }
}
