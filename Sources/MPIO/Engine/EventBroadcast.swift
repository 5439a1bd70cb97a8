import AsyncIO
import Foundation
import Multipath

/// Hands a disk's events to whoever listens, and keeps the last ones for those who come later. Sent on
/// the reactor's thread, listened to on any.
final class EventBroadcast: Sendable {
    private struct State {
        var listeners: [UInt64: AsyncStream<DiskEvent>.Continuation] = [:]
        var nextListener: UInt64 = 0
        var recent: [DiskEvent] = []
        /// The number of the first event in `recent`.
        var firstNumber: UInt64 = 0
        var isFinished = false
    }

    /// A listener that does not read loses the oldest events beyond this.
    static let bufferedEventCount = 1024
    static let recentEventCount = 512

    private let lock = Lock()
    nonisolated(unsafe) private var state = State()

    func send(_ event: DiskEvent) {
        let listeners = lock.withLock {
            state.recent.append(event)
            if state.recent.count > 2 * Self.recentEventCount {
                let surplus = state.recent.count - Self.recentEventCount
                state.recent.removeFirst(surplus)
                state.firstNumber += UInt64(surplus)
            }
            return Array(state.listeners.values)
        }
        for listener in listeners { listener.yield(event) }
    }

    func stream() -> AsyncStream<DiskEvent> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: DiskEvent.self, bufferingPolicy: .bufferingNewest(Self.bufferedEventCount))
        let number: UInt64? = lock.withLock {
            guard !state.isFinished else { return nil }
            state.nextListener += 1
            state.listeners[state.nextListener] = continuation
            return state.nextListener
        }
        guard let number else {
            continuation.finish()
            return stream
        }
        continuation.onTermination = { [weak self] _ in self?.remove(number) }
        return stream
    }

    /// The events from number `first` on that are still kept, with the number of the first one returned.
    func events(from first: UInt64) -> (events: [DiskEvent], number: UInt64) {
        lock.withLock {
            let start = max(first, state.firstNumber)
            let skip = Int(min(start - state.firstNumber, UInt64(state.recent.count)))
            return (Array(state.recent.dropFirst(skip)), state.firstNumber + UInt64(skip))
        }
    }

    func finish() {
        let listeners = lock.withLock {
            state.isFinished = true
            defer { state.listeners.removeAll() }
            return Array(state.listeners.values)
        }
        for listener in listeners { listener.finish() }
    }

    private func remove(_ number: UInt64) {
        _ = lock.withLock { state.listeners.removeValue(forKey: number) }
    }
}
