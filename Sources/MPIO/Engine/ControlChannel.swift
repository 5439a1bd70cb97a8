import ISCSI
import Multipath
import SCSI
import Timebase

/// How a control command ended, with the data that came.
struct ControlAnswer {
    var outcome: PathOutcome
    var data: [UInt8]
}

/// Commands that find out about a path or manage it, rather than move a caller's blocks: each with its
/// own small buffer and a closure for its answer. Rare, so plain; the hot path never comes here.
///
/// Every command gets exactly one answer: a session that ends answers with `.returned`.
final class ControlChannel {
    private enum Pending {
        case command(SCSICommandRequest, buffer: UnsafeMutableRawBufferPointer, (ControlAnswer) -> Void)
        /// `again` where it can be sent once more as it was.
        case taskManagement(again: (function: TaskManagementFunction, lun: LogicalUnitNumber)?, (TaskManagementResponse?) -> Void)
    }

    private unowned let path: ISCSIPath
    /// Told first. It owns the path, and the path owns this channel as one of its clients.
    weak var owner: (any SessionObserver)?
    private(set) var client = PathClientID(rawValue: 0)
    private var pending: [UInt64: Pending] = [:]
    private var nextToken: UInt64 = 0
    /// A session has room for 64 requests that are no commands; some of it is others'.
    private static let abortsAtOnce = 16
    private var underWayAborts = 0
    private var waitingAborts = FIFO<CommandAbort>()

    private struct CommandAbort {
        var command: UInt64
        var lun: LogicalUnitNumber
        /// The target said that it has no such task.
        var wasMissed = false
    }
    /// Told, in the order of registration, of what happens to the session.
    private var observers: [(id: Int, observer: any SessionObserver)] = []
    private var nextObserver = 0

    init(path: ISCSIPath) {
        self.path = path
        client = path.addClient(self)
    }

    /// Sends a command that expects at most `byteCount` bytes of data.
    func execute(
        _ cdb: CommandDescriptorBlock, lun: LogicalUnitNumber, byteCount: Int,
        answer: @escaping (ControlAnswer) -> Void
    ) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(byteCount, 1), alignment: 16)
        submit(cdb, lun: lun, direction: byteCount > 0 ? .read : .none, buffer, byteCount: byteCount, answer: answer)
    }

    /// Sends a command with a parameter list.
    func execute(
        _ cdb: CommandDescriptorBlock, lun: LogicalUnitNumber, parameters: [UInt8],
        answer: @escaping (ControlAnswer) -> Void
    ) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(parameters.count, 1), alignment: 16)
        buffer.copyBytes(from: parameters)
        submit(cdb, lun: lun, direction: .write, buffer, byteCount: parameters.count, answer: answer)
    }

    private func submit(
        _ cdb: CommandDescriptorBlock, lun: LogicalUnitNumber, direction: DataDirection,
        _ buffer: UnsafeMutableRawBufferPointer, byteCount: Int, answer: @escaping (ControlAnswer) -> Void
    ) {
        let token = takeToken()
        let request = SCSICommandRequest(
            token: token, lun: lun, cdb: cdb, direction: direction,
            buffer: byteCount > 0 ? buffer.baseAddress : nil, byteCount: byteCount)
        guard path.submit(request) else {
            buffer.deallocate()
            return answer(ControlAnswer(outcome: .returned(wasSent: false, .connectionClosed), data: []))
        }
        pending[token] = .command(request, buffer: buffer, answer)
    }

    /// Sends a task management function. The answer is nil where none came.
    func manage(
        _ function: TaskManagementFunction, lun: LogicalUnitNumber, answer: @escaping (TaskManagementResponse?) -> Void
    ) {
        let token = takeToken()
        guard path.submit(function, lun: lun, token: token) else { return answer(nil) }
        pending[token] = .taskManagement(again: (function, lun), answer)
    }

    /// ABORT TASK of another client's command, by its token. How it ends shows in that command's completion.
    func abort(_ command: UInt64, lun: LogicalUnitNumber) {
        let abort = CommandAbort(command: command, lun: lun)
        guard underWayAborts < Self.abortsAtOnce else { return waitingAborts.append(abort) }
        _ = submit(abort)
    }

    /// False: not sent, since the command is not open any more, or the session is not.
    private func submit(_ abort: CommandAbort) -> Bool {
        let token = takeToken()
        guard path.submit(.abortTask, lun: abort.lun, referencing: abort.command, token: token) else { return false }
        underWayAborts += 1
        pending[token] = .taskManagement(again: nil) { [unowned self] in answered(abort, $0) }
        return true
    }

    private func answered(_ abort: CommandAbort, _ response: TaskManagementResponse?) {
        underWayAborts -= 1
        if response == .taskDoesNotExist {
            // Its status may be right behind. After a second answer it is not.
            var again = abort
            again.wasMissed = true
            if !abort.wasMissed, submit(again) { return }
            path.endUnanswered(abort.command)
        }
        while let next = waitingAborts.removeFirst(), !submit(next) {}
    }

    /// Calls back once, later, whatever becomes of the session.
    func after(_ time: Duration, _ body: @escaping () -> Void) {
        let port = path.port
        _ = port.setTimer(at: port.now + time, handler: DelayedCall(body), token: 0)
    }

    private func takeToken() -> UInt64 {
        nextToken += 1
        return client.token(nextToken)
    }

    /// Keeps the observer until ``stopObserving(_:)``.
    func observe(_ observer: any SessionObserver) -> Int {
        nextObserver += 1
        observers.append((nextObserver, observer))
        return nextObserver
    }

    func stopObserving(_ id: Int) { observers.removeAll { $0.id == id } }
}

/// Who wants to know when a session comes and goes, without having commands of its own.
protocol SessionObserver: AnyObject {
    func sessionLoggedIn()
    func sessionLost(_ failure: PathFailure)
}

extension ControlChannel: ISCSIPathClient {
    func pathLoggedIn(_ path: ISCSIPath) {
        owner?.sessionLoggedIn()
        for entry in observers { entry.observer.sessionLoggedIn() }
    }

    func path(_ path: ISCSIPath, completed completion: borrowing CommandCompletion) {
        guard case .command(_, let buffer, let answer)? = pending.removeValue(forKey: completion.token) else { return }
        let data = Array(buffer.prefix(completion.transferredByteCount))
        buffer.deallocate()
        // Less data than allocated is normal for these commands; their parsers judge it.
        answer(ControlAnswer(outcome: PathOutcome(completion.outcome), data: data))
    }

    func path(_ path: ISCSIPath, abandoned token: UInt64, wasSent: Bool) {
        guard case .command(_, let buffer, let answer)? = pending.removeValue(forKey: token) else { return }
        buffer.deallocate()
        answer(ControlAnswer(outcome: .returned(wasSent: wasSent, .connectionClosed), data: []))
    }

    func path(_ path: ISCSIPath, taskManagement token: UInt64, answered response: TaskManagementResponse?) {
        guard case .taskManagement(_, let answer)? = pending.removeValue(forKey: token) else { return }
        answer(response)
    }

    // What is asked here may be asked twice: it is sent again over another connection, and nobody need know.

    func path(_ path: ISCSIPath, lost token: UInt64, wasSent: Bool) {
        guard case .command(let request, _, _)? = pending[token] else { return }
        if !path.submit(request) { self.path(path, abandoned: token, wasSent: wasSent) }
    }

    func path(_ path: ISCSIPath, lostTaskManagement token: UInt64) {
        guard case .taskManagement(let again, _)? = pending[token] else { return }
        if let again, path.submit(again.function, lun: again.lun, token: token) { return }
        self.path(path, taskManagement: token, answered: nil)
    }

    func pathLost(_ path: ISCSIPath, failure: PathFailure) {
        owner?.sessionLost(failure)
        for entry in observers { entry.observer.sessionLost(failure) }
    }

    func path(_ path: ISCSIPath, liveness: PathLiveness) {}
    func path(_ path: ISCSIPath, asyncSense sense: SenseData?) {}
}

extension PathOutcome {
    /// A session's verdict without its byte counts.
    @inline(__always)
    init(_ outcome: CommandOutcome) {
        switch outcome {
        case .status(.good, _): self = .good
        case .status(let status, let sense): self = .status(status, sense)
        case .targetFailure(let code): self = .targetFailure(code)
        // The device server never saw it, so nothing was done.
        case .rejected: self = .returned(wasSent: false, .protocolError)
        case .aborted: self = .status(.taskAborted, nil)
        }
    }
}
