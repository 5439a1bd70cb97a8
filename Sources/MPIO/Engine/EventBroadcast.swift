import AsyncIO
import Foundation
import Multipath

/// Hands a disk's events to whoever listens. Sent on the threads of the disk's reactors, listened to on any.
final class EventBroadcast: Sendable {
    private struct State {
        /// Those whose events it hands on, and that have not ended.
        var lanes: Set<Int> = [0]
        var listeners: [UInt64: AsyncStream<DiskEvent>.Continuation] = [:]
        var nextListener: UInt64 = 0
        var isFinished = false
    }

    /// A listener that does not read loses the oldest events beyond this.
    static let bufferedEventCount = 1024

    private let lock = Lock()
    nonisolated(unsafe) private var state = State()

    /// - Parameter laneCount: so many lanes send, and each finishes.
    init(laneCount: Int = 1) { state.lanes = Set(0..<laneCount) }

    func send(_ event: DiskEvent) {
        let listeners = lock.withLock { Array(state.listeners.values) }
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

    /// A lane is closed: the streams end with the last.
    func finish(_ lane: Int = 0) {
        let listeners = lock.withLock { () -> [AsyncStream<DiskEvent>.Continuation] in
            state.lanes.remove(lane)
            guard state.lanes.isEmpty else { return [] }
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
