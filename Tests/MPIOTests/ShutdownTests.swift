import Foundation
import ISCSITarget
import Multipath
import TestSupport
import Testing

@testable import MPIO

/// How a manager ends, on whichever thread.
@Suite(.serialized) struct ShutdownTests {
    /// Takes its time before it asks the first reactor, as a handler does that wants something of it.
    private final class SlowHandler: ControlHandler, @unchecked Sendable {
        private let state: ManagerState
        private let entered = DispatchSemaphore(value: 0)

        init(_ state: ManagerState) { self.state = state }

        func waitUntilAsked() { entered.wait() }

        func handle(_ request: ControlRequest) -> ControlResponse {
            entered.signal()
            usleep(300_000)
            return state.wait(orWhenEnded: .done("ended")) { _, report in report(.done("answered")) }
        }
    }

    @Test func shutdownOnAReactorsThreadLetsAClientHaveItsAnswer() async throws {
        let target = try TargetWithUnits(units: 1)
        var options = target.options
        options.isInspectable = false
        let manager = try await PathManager(configuration: Configuration(yaml: target.yaml(units: [0])), options: options)
        _ = try await manager.open("a")
        let handler = SlowHandler(manager.state)
        try manager.state.startControlServer(directory: options.runtimeDirectory, handler: handler)
        let folder = options.runtimeDirectory
        let answer = Locked<ControlResponse?>(nil)
        let isOver = Locked(false)
        let ending = Task {
            try await manager.run {
                Thread.detachNewThread {
                    let response = try? ControlClient.discover(directories: [folder], timeout: .seconds(30)).first?.request(.identify)
                    answer.withLock { $0 = response }
                }
                handler.waitUntilAsked()
                try await manager.shutdown()
            }
            isOver.withLock { $0 = true }
        }
        #expect(try await eventually { isOver.withLock { $0 } }, "shut down")
        #expect(try await eventually { answer.withLock { $0 } == .done("answered") })
        _ = ending
        try target.stop()
    }

    @Test(arguments: [1, 2]) func aManagerThatIsDroppedAnswersWhatIsUnderWay(reactors: Int) async throws {
        let target = try TargetWithUnits(units: 1)
        var manager: PathManager? = try await target.manager(reactors: reactors, units: [0])
        let disk = try await manager!.open("a")
        try target.with { _ = try $0.setFault(FaultCommand(parsing: "delay=1h:op=read")) }
        let error = Locked<DiskError??>(nil)
        let buffer = IOBuffer(byteCount: TargetWithUnits.blockByteCount)
        Task {
            do throws(DiskError) {
                try await disk.read(into: buffer, at: 0)
                error.withLock { $0 = .some(nil) }
            } catch let failure {
                error.withLock { $0 = failure }
            }
        }
        #expect(try await eventually { try await disk.gate.reference.call { $0.lun.requestCount } == 1 }, "it is under way")
        let folder = target.options.runtimeDirectory
        manager = nil
        #expect(try await eventually { error.withLock { $0 != nil } }, "it ended")
        #expect(error.withLock { $0 } == .some(.closed))
        await #expect(throws: DiskError.closed) { try await disk.flush() }
        #expect(try await eventually { try target.with { target in (0..<2).allSatisfy { target.connectionCount(portal: $0) == 0 } } }, "logged out")
        #expect(ControlClient.discover(directories: [folder]).isEmpty)
        try target.stop()
    }

    /// The last reference goes on the thread that the end has to wait for.
    @Test func aManagerMayBeDroppedOnItsReactorsThread() async throws {
        let target = try TargetWithUnits(units: 1)
        let held = Locked<PathManager?>(try await target.manager(reactors: 1, units: [0]))
        let disk = try await held.withLock { $0 }!.open("a")
        try await disk.run {
            try await disk.flush()
            held.withLock { $0 = nil }
        }
        #expect(try await eventually { try target.with { target in (0..<2).allSatisfy { target.connectionCount(portal: $0) == 0 } } })
        await #expect(throws: DiskError.closed) { try await disk.flush() }
        try target.stop()
    }
}
