import AsyncIO
import Multipath
import TestSupport
import Testing
import Timebase

@testable import MPIO

/// A kernel device whose operations end when the test says so.
@Suite struct DevicePathTests {
    private final class SlowDevice: IOPort {
        struct Operation {
            var operation: FileOperation
            var handler: any FileHandler
            var token: UInt64
        }

        var now = Instant(nanoseconds: 1)
        var submitted: [Operation] = []
        private var scheduled: [any TurnHandler] = []

        func openFile(_ path: String, options: FileOptions) throws(IOError) -> FileID { FileID(rawValue: 1) }
        func fileProperties(_ file: FileID) throws(IOError) -> FileProperties {
            FileProperties(byteCount: 1 << 30, isBlockDevice: false, blockSize: 512, directAlignment: 512, deviceNumber: 0, fileNumber: 1)
        }
        func submit(_ operation: FileOperation, on file: FileID, handler: any FileHandler, token: UInt64) {
            submitted.append(Operation(operation: operation, handler: handler, token: token))
        }
        func close(_ file: FileID) {}
        func schedule(_ handler: any TurnHandler) { scheduled.append(handler) }

        func turn() {
            let handlers = scheduled
            scheduled.removeAll()
            for handler in handlers { handler.turn() }
        }

        /// Ends the oldest operation.
        func end(_ result: Result<Int, IOError>) {
            let first = submitted.removeFirst()
            first.handler.fileCompleted(FileID(rawValue: 1), token: first.token, result: result)
        }

        func readClock() -> Instant { now }
        func setTimer(at deadline: Instant, handler: any TimerHandler, token: UInt64) -> TimerID { TimerID(rawValue: 0) }
        func cancelTimer(_ timer: TimerID) {}
        func connect(to destination: SocketAddress, from source: SocketAddress?, handler: any SocketHandler) -> SocketID { fatalError("no sockets") }
        func listen(on address: SocketAddress, handler: any ListenerHandler) throws(IOError) -> ListenerID { fatalError("no sockets") }
        func requestSend(_ socket: SocketID) {}
        func setReceiving(_ enabled: Bool, on socket: SocketID) {}
        func close(_ socket: SocketID, mode: CloseMode) {}
        func close(_ listener: ListenerID) {}
        func localAddress(of socket: SocketID) -> SocketAddress? { nil }
        func localAddress(of listener: ListenerID) -> SocketAddress? { nil }
        func transportHealth(of socket: SocketID) -> TransportHealth? { nil }
    }

    private final class Sink: CompletionSink {}

    private func record(_ operation: IOOperation, _ byteCount: Int, _ sink: Sink) -> RequestRecord {
        RequestRecord(
            submission: IOSubmission(
                operation: operation, forceUnitAccess: false, offset: 0, byteCount: byteCount, memory: nil, token: 1,
                sink: .passUnretained(sink)),
            index: RequestIndex(slot: 0, attempt: 1), zeroing: .writeSame, parent: -1)
    }

    /// Megabyte by megabyte; what was not begun when the request was given up is never begun, or it would undo newer writes.
    @Test(arguments: [true, false]) func aWithdrawnRequestGoesNoFurther(isWithdrawn: Bool) {
        let device = SlowDevice()
        let path = DevicePath(path: "/dev/slow", vouchedIdentity: nil, port: device)
        path.connect()
        device.turn()
        let sink = Sink()
        var record = record(.writeZeroes, 3 << 20, sink)
        #expect(path.issue(record.index, &record, limits: TransferLimits()) == nil)
        #expect(device.submitted.count == 1)
        if isWithdrawn { path.withdraw(record.index) }
        device.end(.success(1 << 20))
        #expect(device.submitted.count == (isWithdrawn ? 0 : 1))
    }

    @Test func aPathThatIsGivenUpBeforeItsFileIsOpenDoesNotOpenIt() {
        let device = SlowDevice()
        let path = DevicePath(path: "/dev/slow", vouchedIdentity: nil, port: device)
        path.connect()
        path.disconnect()
        device.turn()
        let sink = Sink()
        var record = record(.flush, 0, sink)
        #expect(path.issue(record.index, &record, limits: TransferLimits()) == .connectionClosed)
    }
}
