import AsyncIO
import Cryptography
import Multipath
import SCSI
import Testing
import Timebase

@testable import ISCSI
@testable import MPIO

/// A port under virtual time, whose sockets end in the test's hands.
final class ScriptedPort: IOPort {
    final class Socket {
        let id: SocketID
        let destination: SocketAddress
        let handler: any SocketHandler
        var isConnected = false
        var isOpen = true
        var wantsToSend = false

        init(id: SocketID, destination: SocketAddress, handler: any SocketHandler) {
            self.id = id
            self.destination = destination
            self.handler = handler
        }
    }

    private struct Timer {
        var deadline: Instant
        var handler: any TimerHandler
        var token: UInt64
    }

    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    /// All that were ever made, in order.
    private(set) var sockets: [Socket] = []
    private(set) var firedCount = 0
    private var timers: [UInt64: Timer] = [:]
    private var nextTimer: UInt64 = 0

    func readClock() -> Instant { now }

    func connect(to destination: SocketAddress, from source: SocketAddress?, handler: any SocketHandler) -> SocketID {
        let socket = Socket(id: SocketID(rawValue: UInt64(sockets.count)), destination: destination, handler: handler)
        sockets.append(socket)
        return socket.id
    }

    func requestSend(_ socket: SocketID) { sockets[Int(socket.rawValue)].wantsToSend = true }
    func setReceiving(_ enabled: Bool, on socket: SocketID) {}
    func close(_ socket: SocketID, mode: CloseMode) { sockets[Int(socket.rawValue)].isOpen = false }
    func localAddress(of socket: SocketID) -> SocketAddress? { nil }

    /// Alive, and with nothing unacknowledged.
    func transportHealth(of socket: SocketID) -> TransportHealth? {
        TransportHealth(unacknowledgedByteCount: 0, sinceLastAcknowledgement: .seconds(1), unansweredRetransmissions: 0)
    }

    func setTimer(at deadline: Instant, handler: any TimerHandler, token: UInt64) -> TimerID {
        nextTimer += 1
        timers[nextTimer] = Timer(deadline: deadline, handler: handler, token: token)
        return TimerID(rawValue: nextTimer)
    }

    func cancelTimer(_ timer: TimerID) { timers[timer.rawValue] = nil }

    /// Goes on to the next timer that is due by then, and fires it; false where there is none: then it is `end`.
    func fireNext(before end: Instant) -> Bool {
        guard let (id, timer) = timers.min(by: { ($0.value.deadline, $0.key) < ($1.value.deadline, $1.key) }), timer.deadline <= end
        else {
            now = max(now, end)
            return false
        }
        now = max(now, timer.deadline)
        timers[id] = nil
        firedCount += 1
        timer.handler.timerFired(TimerID(rawValue: id), token: timer.token)
        return true
    }

    // No disk of a test's has files, and nothing listens.

    private static let unsupported = IOError(code: 38, operation: "a scripted port")
    func listen(on address: SocketAddress, handler: any ListenerHandler) throws(IOError) -> ListenerID { throw Self.unsupported }
    func close(_ listener: ListenerID) {}
    func localAddress(of listener: ListenerID) -> SocketAddress? { nil }
    func openFile(_ path: String, options: FileOptions) throws(IOError) -> FileID { throw Self.unsupported }
    func fileProperties(_ file: FileID) throws(IOError) -> FileProperties { throw Self.unsupported }
    func submit(_ operation: FileOperation, on file: FileID, handler: any FileHandler, token: UInt64) {
        handler.fileCompleted(file, token: token, result: .failure(Self.unsupported))
    }
    func close(_ file: FileID) {}
    func schedule(_ handler: any TurnHandler) { handler.turn() }
}

/// What a session's client hears.
final class RecordingClient: ISCSIPathClient {
    var loginCount = 0
    var completions: [CommandCompletion] = []
    var abandoned: [UInt64] = []
    var lost: [UInt64] = []
    var failures: [PathFailure] = []
    var liveness: [PathLiveness] = []
    var changes: [ConnectionChange] = []
    var onCompletion: (() -> Void)?

    func pathLoggedIn(_ path: ISCSIPath) { loginCount += 1 }
    func path(_ path: ISCSIPath, completed completion: borrowing CommandCompletion) {
        completions.append(copy completion)
        onCompletion?()
    }
    func path(_ path: ISCSIPath, abandoned token: UInt64, wasSent: Bool) { abandoned.append(token) }
    func path(_ path: ISCSIPath, lost token: UInt64, wasSent: Bool) { lost.append(token) }
    func path(_ path: ISCSIPath, taskManagement token: UInt64, answered response: TaskManagementResponse?) {}
    func pathLost(_ path: ISCSIPath, failure: PathFailure) { failures.append(failure) }
    func path(_ path: ISCSIPath, liveness: PathLiveness) { self.liveness.append(liveness) }
    func path(_ path: ISCSIPath, asyncSense sense: SenseData?) {}
    func path(_ path: ISCSIPath, connection change: ConnectionChange) { changes.append(change) }
}

/// A session over a scripted port, and its target: logins, pings and logouts it answers by itself; the rest is the test's.
final class ScriptedSession {
    struct SentPDU {
        var header: BasicHeaderSegment
        var data: [UInt8]
        var opcode: PDUOpcode { header.opcode }
    }

    final class Connection {
        let socket: ScriptedPort.Socket
        var decoder = PDUDecoder(crc32c: CRC32C.table)
        var login = TargetLogin(cryptography: SystemCryptography())
        var isLoggedIn = false
        var statSN: UInt32 = 0
        /// What the target did not answer by itself.
        var received: [SentPDU] = []

        init(_ socket: ScriptedPort.Socket) { self.socket = socket }
    }

    let port = ScriptedPort()
    let path: ISCSIPath
    let client = RecordingClient()
    let id: PathClientID
    let portals: [SocketAddress]
    private(set) var connections: [Connection] = []
    private var agreed: NegotiatedParameters?
    private var expCmdSN: UInt32 = 0
    private let level: Int
    /// TCP connections are accepted.
    var accepts = true
    var answersLogins = true
    var answersPings = true
    /// Whether a connection is cut as soon as it has logged in.
    var cutsAfterLogin: (Connection) -> Bool = { _ in false }

    init(connections count: Int = 1, level: Int = 0, _ change: (inout SessionSettings) -> Void = { _ in }) {
        self.level = level
        portals = (1...count).map { SocketAddress("10.0.0.\($0):3260")! }
        var login = LoginSettings(
            initiatorName: "iqn.2026-11.org.example:host", targetName: "iqn.2026-11.org.example:target",
            isid: .random(1, qualifier: 1))
        login.operational.maxConnections = count
        login.operational.errorRecoveryLevel = level
        login.operational.defaultTime2Wait = 0
        var session = SessionSettings(login: login)
        change(&session)
        var settings = ISCSIPathSettings(name: "path", portal: portals[0], source: nil, session: session)
        settings.connections = portals.map { ISCSIConnectionSettings(portal: $0, source: nil) }
        let host = EngineHost(port: port, cryptography: SystemCryptography(), crc32c: CRC32C.table)
        path = ISCSIPath(settings: settings, host: host)
        id = path.addClient(client)
    }

    /// Asks for the session, and does what is to be done without time passing.
    func connect() {
        path.connect(for: id)
        settle()
    }

    /// The connection that was made last, to this portal.
    func latest(_ portal: Int = 0) -> Connection { connections.last { $0.socket.destination == portals[portal] }! }
    func loginCount(_ portal: Int) -> Int { connections.count { $0.socket.destination == portals[portal] && $0.isLoggedIn } }

    // MARK: steps

    /// Moves bytes until nothing moves; false where that has no end.
    @discardableResult
    func settle() -> Bool {
        for _ in 0..<500 {
            guard step() else { return true }
        }
        return false
    }

    private func step() -> Bool {
        var hasMoved = false
        for socket in port.sockets[connections.count...] { connections.append(Connection(socket)) }
        for connection in connections where connection.socket.isOpen {
            let socket = connection.socket
            if !socket.isConnected, accepts {
                socket.isConnected = true
                hasMoved = true
                socket.handler.socketConnected(socket.id)
            } else if socket.wantsToSend {
                socket.wantsToSend = false
                hasMoved = true
                for pdu in take(connection) where socket.isOpen { answer(pdu, connection) }
            }
        }
        return hasMoved
    }

    private func take(_ connection: Connection) -> [SentPDU] {
        let socket = connection.socket
        var pdus: [SentPDU] = []
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 16) { segments in
            while socket.isOpen {
                let count = socket.handler.socketOutput(socket.id, into: segments)
                guard count > 0 else { break }
                let bytes = segments[..<count].flatMap { Array($0) }
                socket.handler.socketSent(socket.id, byteCount: bytes.count)
                bytes.withUnsafeBytes { bytes in
                    var rest = bytes
                    loop: while true {
                        switch connection.decoder.next(&rest) {
                        case .needMore: break loop
                        case .header: connection.decoder.collect(limit: 1 << 20)
                        case .complete:
                            pdus.append(SentPDU(header: connection.decoder.header, data: Array(connection.decoder.collectedData)))
                        case .failed, .dataDigestError:
                            Issue.record("the session sent something malformed")
                            break loop
                        }
                    }
                }
            }
        }
        return pdus
    }

    /// Lets time pass, moving bytes after each timer. False where timers, or bytes, have no end.
    @discardableResult
    func pass(_ duration: Duration, limit: Int = 2000) -> Bool {
        let end = port.now + duration
        for _ in 0..<limit {
            guard settle() else { return false }
            guard port.fireNext(before: end) else { return settle() }
        }
        return false
    }

    // MARK: the target

    private func answer(_ pdu: SentPDU, _ connection: Connection) {
        guard connection.isLoggedIn else {
            if answersLogins { logIn(pdu, connection) }
            return
        }
        if pdu.opcode == .scsiCommand { expCmdSN = pdu.header.cmdSN &+ 1 }
        switch pdu.opcode {
        case .nopOut where answersPings:
            if !pdu.header.isImmediate { expCmdSN = pdu.header.cmdSN &+ 1 }
            put(connection, .nopIn(tag: pdu.header.initiatorTaskTag, numbers: numbers(connection)))
        case .logoutRequest:
            put(connection, .logoutResponse(.closed, tag: pdu.header.initiatorTaskTag, numbers: numbers(connection)))
        default: connection.received.append(pdu)
        }
    }

    private func logIn(_ pdu: SentPDU, _ connection: Connection) {
        var action = pdu.data.withUnsafeBytes { connection.login.received(pdu.header, data: $0) }
        while true {
            switch action {
            case .identify(let identity):
                var grant = TargetLoginGrant()
                grant.operational.maxConnections = portals.count
                grant.operational.errorRecoveryLevel = level
                grant.operational.defaultTime2Wait = 0
                if identity.tsih != 0 { grant.sessionParameters = agreed }
                action = connection.login.identified(.accept(grant))
            case .establish(let identity, let parameters):
                if identity.tsih == 0 {
                    agreed = parameters
                    expCmdSN = identity.cmdSN
                }
                action = connection.login.established(.admit(tsih: 7, expCmdSN: expCmdSN, maxCmdSN: expCmdSN &+ 63))
            case .send(let response): return put(connection, response.header, response.data)
            case .finished(let response, let result):
                connection.isLoggedIn = true
                connection.statSN = result.statSN
                connection.decoder.maxDataSegmentByteCount = result.parameters.maxRecvDataSegmentByteCount
                put(connection, response.header, response.data)
                if cutsAfterLogin(connection) { cut(connection) }
                return
            case .refused, .failed:
                Issue.record("the login failed at the target")
                return
            }
        }
    }

    func numbers(_ connection: Connection) -> ResponseNumbers {
        defer { connection.statSN &+= 1 }
        return ResponseNumbers(statSN: connection.statSN, expCmdSN: expCmdSN, maxCmdSN: expCmdSN &+ 63)
    }

    func put(_ connection: Connection, _ header: BasicHeaderSegment, _ data: [UInt8] = []) {
        put(connection, [PDU(header: header, data: data)])
    }

    /// All of it in one receive.
    func put(_ connection: Connection, _ pdus: [PDU]) {
        let socket = connection.socket
        guard socket.isOpen else { return }
        pdus.flatMap { $0.encoded() }.withUnsafeBytes {
            socket.handler.socketReceived(socket.id, placedByteCount: 0, spill: $0)
        }
    }

    func cut(_ connection: Connection) {
        guard connection.socket.isOpen else { return }
        connection.socket.isOpen = false
        connection.socket.handler.socketClosed(connection.socket.id, reason: .endOfStream)
    }

    // MARK: commands

    static let lun = LogicalUnitNumber(index: 3)!

    /// TEST UNIT READY
    @discardableResult
    func submit(_ number: UInt64) -> UInt64 {
        let token = id.token(number)
        #expect(path.submit(SCSICommandRequest(token: token, lun: Self.lun, cdb: CommandDescriptorBlock(operationCode: 0))))
        settle()
        return token
    }

    func received(_ opcode: PDUOpcode, _ connection: Connection) -> SentPDU? {
        guard let index = connection.received.firstIndex(where: { $0.opcode == opcode }) else { return nil }
        return connection.received.remove(at: index)
    }

    func good(_ command: SentPDU, _ connection: Connection) {
        put(connection, .scsiResponse(tag: command.header.initiatorTaskTag, status: .good, numbers: numbers(connection)))
    }
}
