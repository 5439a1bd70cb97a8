import SCSI
import Testing
import Timebase

@testable import ISCSI

/// A session and a target's logins, from the first byte on.
private final class LoginRig {
    var session: InitiatorSession
    var now = Instant(nanoseconds: 1_000_000_000)
    var events: [SessionEvent] = []
    var logins: [TargetLogin] = []
    var ends: [TargetEndBox] = []
    var grant = TargetLoginGrant()
    var decision: TargetLoginDecision?
    var identities: [TargetLoginIdentity] = []
    var agreed: NegotiatedParameters?

    final class TargetEndBox {
        var decoder = PDUDecoder(crc32c: CRC32C.table)
        var isFinished = false
        var parameters = NegotiatedParameters()
        var statSN: UInt32 = 1
        var requests: [SentPDU] = []
    }

    init(
        type: SessionType = .normal, maxConnections: Int = 1, digests: [DigestKind] = [.none],
        settings change: (inout SessionSettings) -> Void = { _ in }
    ) {
        var login = LoginSettings(
            initiatorName: "iqn.2026-11.org.example:host",
            targetName: type == .normal ? "iqn.2026-11.org.example:target" : nil, isid: .random(1, qualifier: 1))
        login.sessionType = type
        login.operational.maxConnections = maxConnections
        login.operational.headerDigest = digests
        login.operational.dataDigest = digests
        grant.operational.maxConnections = maxConnections
        grant.operational.headerDigest = [.crc32c, .none]
        grant.operational.dataDigest = [.crc32c, .none]
        var settings = SessionSettings(login: login)
        change(&settings)
        session = InitiatorSession(settings: settings, cryptography: TestCryptography(), crc32c: CRC32C.table)
        for _ in 0..<maxConnections {
            logins.append(TargetLogin(cryptography: TestCryptography()))
            ends.append(TargetEndBox())
        }
    }

    func submit(_ token: UInt64, on index: Int = 0) -> SubmitResult {
        session.submit(
            SCSICommandRequest(token: token, lun: LogicalUnitNumber(index: 0)!, cdb: CommandDescriptorBlock(operationCode: 0)),
            on: ConnectionIndex(rawValue: index), at: now)
    }

    func discover() -> Bool { session.discoverTargets(at: now) }
    func nextCompletion() -> CommandCompletion? { session.nextCompletion() }

    func drain() { while let event = session.nextEvent() { events.append(event) } }

    func open(_ index: Int) {
        session.connectionOpened(ConnectionIndex(rawValue: index), at: now)
        for _ in 0..<20 { if !exchange(index) { break } }
        drain()
    }

    /// Takes what the session sends; answers logins. False where there was nothing.
    func exchange(_ index: Int) -> Bool {
        let c = ConnectionIndex(rawValue: index)
        var bytes: [UInt8] = []
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 16) { segments in
            let count = session.output(c, into: segments)
            for segment in segments[..<count] { bytes += segment }
        }
        session.outputSent(c, byteCount: bytes.count)
        guard !bytes.isEmpty else { return false }
        var pdus: [SentPDU] = []
        bytes.withUnsafeBytes {
            var rest = $0
            loop: while true {
                switch ends[index].decoder.next(&rest) {
                case .header: ends[index].decoder.collect(limit: 1 << 20)
                case .complete: pdus.append(SentPDU(header: ends[index].decoder.header, data: Array(ends[index].decoder.collectedData)))
                case .needMore: break loop
                case .failed, .dataDigestError:
                    Issue.record("malformed output")
                    break loop
                }
            }
        }
        for pdu in pdus {
            guard !ends[index].isFinished else {
                ends[index].requests.append(pdu)
                continue
            }
            pdu.data.withUnsafeBytes { data in
                var action = logins[index].received(pdu.header, data: data)
                while true {
                    switch action {
                    case .identify(let identity):
                        identities.append(identity)
                        if identity.tsih != 0 { grant.sessionParameters = agreed }
                        action = logins[index].identified(decision ?? .accept(grant))
                        continue
                    case .establish(let identity, _):
                        action = logins[index].established(.admit(tsih: 9, expCmdSN: identity.cmdSN, maxCmdSN: identity.cmdSN &+ 31))
                        continue
                    case .send(let pdu), .refused(let pdu, _): put(pdu, index)
                    case .finished(let pdu, let result):
                        if agreed == nil { agreed = result.parameters }
                        put(pdu, index)
                        ends[index].isFinished = true
                        ends[index].parameters = result.parameters
                        ends[index].statSN = result.statSN
                        ends[index].decoder.headerDigest = result.parameters.headerDigest == .crc32c
                        ends[index].decoder.dataDigest = result.parameters.dataDigest == .crc32c
                        ends[index].decoder.maxDataSegmentByteCount = result.parameters.maxRecvDataSegmentByteCount
                    case .failed(let failure): Issue.record("target: \(failure)")
                    }
                    break
                }
            }
        }
        return true
    }

    func put(_ pdu: PDU, _ index: Int, splitAt: Int? = nil) {
        let end = ends[index]
        let crc: CRC32CFunction? = end.isFinished && end.parameters.headerDigest == .crc32c ? CRC32C.table : nil
        let data: CRC32CFunction? = end.isFinished && end.parameters.dataDigest == .crc32c ? CRC32C.table : nil
        // One byte at a time: no answer may depend on where the stream is cut.
        for byte in pdu.encoded(headerDigest: crc, dataDigest: data) {
            withUnsafeBytes(of: byte) {
                session.received(ConnectionIndex(rawValue: index), placedByteCount: 0, spill: $0, at: now)
            }
        }
        drain()
    }

    func numbers(_ index: Int, expCmdSN: UInt32) -> ResponseNumbers {
        defer { ends[index].statSN &+= 1 }
        return ResponseNumbers(statSN: ends[index].statSN, expCmdSN: expCmdSN, maxCmdSN: expCmdSN &+ 31)
    }
}

@Suite struct InitiatorSessionLoginTests {
    @Test(arguments: [[DigestKind.none], [.crc32c]])
    func loginLeadsToCommandsWithTheAgreedDigests(digests: [DigestKind]) throws {
        let rig = LoginRig(digests: digests)
        #expect(rig.session.state == .free)
        rig.open(0)
        guard case .loggedIn(let result)? = rig.events.first else {
            Issue.record("\(rig.events)")
            return
        }
        #expect(result.tsih == 9)
        #expect(result.parameters.headerDigest == digests[0])
        #expect(rig.session.state == .loggedIn(result.parameters))
        let accepted = rig.submit(1)
        #expect(accepted.isAccepted)
        _ = rig.exchange(0)
        let command = try #require(rig.ends[0].requests.first)
        #expect(command.opcode == .scsiCommand && command.header.cmdSN == result.cmdSN)
        rig.put(
            PDU(header: .scsiResponse(
                tag: command.header.initiatorTaskTag, status: .good, numbers: rig.numbers(0, expCmdSN: result.cmdSN &+ 1))), 0)
        #expect(rig.nextCompletion()?.outcome == .status(.good, sense: nil))
    }

    @Test func aRefusalRedirectionOrSilenceEndsTheSession() {
        let refused = LoginRig()
        refused.decision = .reject(.authorizationFailure)
        refused.open(0)
        #expect(refused.events == [
            .loginFailed(.refused(.authorizationFailure)), .sessionFailed(.login(.refused(.authorizationFailure))),
        ])

        let redirected = LoginRig()
        let address = TargetAddress(host: "10.0.0.7", port: 3261, portalGroupTag: nil)
        redirected.decision = .redirect(address, isPermanent: true)
        redirected.open(0)
        #expect(redirected.events == [
            .redirected(LoginRedirection(address: address, isPermanent: true)), .sessionFailed(.redirected),
        ])

        let silent = LoginRig()
        silent.session.connectionOpened(.leading, at: silent.now)
        #expect(silent.session.nextDeadline == silent.now + .seconds(5))
        silent.now = silent.now + .seconds(5)
        silent.session.timerFired(at: silent.now) { _ in nil }
        silent.drain()
        #expect(silent.events == [.sessionFailed(.loginTimeout)])
        #expect(silent.session.nextDeadline == .distantFuture)

        let closed = LoginRig()
        closed.session.connectionOpened(.leading, at: closed.now)
        closed.session.connectionClosed(.leading, reason: .endOfStream, at: closed.now)
        closed.drain()
        #expect(closed.events == [.sessionFailed(.endOfStream)])

        let unreachable = LoginRig()
        unreachable.session.connectionClosed(.leading, reason: .connectFailed(code: 111), at: unreachable.now)
        unreachable.drain()
        #expect(unreachable.events == [.sessionFailed(.connectFailed(code: 111))])
    }

    @Test func fullFeaturePDUsDuringLoginEndIt() {
        for header: BasicHeaderSegment in [
            .dataIn(tag: 0, flags: .final, dataSN: 0, bufferOffset: 0, byteCount: 4, numbers: ResponseNumbers(statSN: 1, expCmdSN: 1, maxCmdSN: 1)),
            .nopIn(numbers: ResponseNumbers(statSN: 1, expCmdSN: 1, maxCmdSN: 1)),
        ] {
            let rig = LoginRig()
            rig.session.connectionOpened(.leading, at: rig.now)
            rig.put(PDU(header: header, data: [UInt8](repeating: 0, count: header.dataSegmentByteCount)), 0)
            guard case .failed = rig.session.state else {
                Issue.record("\(rig.session.state)")
                continue
            }
        }
    }

    @Test func discoveryCollectsALongAnswerOverManyPDUs() throws {
        let rig = LoginRig(type: .discovery)
        rig.open(0)
        #expect(rig.submit(1).isNotLoggedIn)
        #expect(rig.discover())
        #expect(!rig.discover(), "one exchange at a time")
        let targets = (0..<200).map {
            DiscoveredTarget(
                name: "iqn.2026-11.org.example:t\($0)",
                addresses: [TargetAddress(host: "10.0.0.\($0)", port: 3260, portalGroupTag: 1)])
        }
        let answer = SendTargets.encode(targets)
        var position = 0
        while position < answer.count {
            _ = rig.exchange(0)
            let popped = rig.ends[0].requests.popLast()
            let request = try #require(popped)
            #expect(request.opcode == .textRequest)
            if position == 0 {
                #expect(request.data == Array("SendTargets=All\0".utf8))
            } else {
                #expect(request.data.isEmpty && request.header.targetTransferTag == 0x77)
            }
            let part = Array(answer[position..<min(position + 1000, answer.count)])
            position += part.count
            let isLast = position == answer.count
            rig.put(
                PDU(header: .textResponse(
                    isLast ? .final : .continues, tag: request.header.initiatorTaskTag,
                    targetTransferTag: isLast ? BasicHeaderSegment.reservedTag : 0x77,
                    numbers: rig.numbers(0, expCmdSN: request.header.cmdSN)), data: part), 0)
        }
        #expect(rig.events.last == .targets(targets))
        #expect(rig.discover(), "and another one afterwards")
    }

    @Test func furtherConnectionsJoinAndCarryCommandsOfTheirOwn() throws {
        let rig = LoginRig(maxConnections: 3)
        rig.open(0)
        rig.open(1)
        rig.open(2)
        #expect(rig.identities.map(\.tsih) == [0, 9, 9])
        #expect(Set(rig.identities.map(\.connectionID)).count == 3)
        #expect(rig.events.suffix(2) == [.connectionAdded(ConnectionIndex(rawValue: 1)), .connectionAdded(ConnectionIndex(rawValue: 2))])
        var cmdSNs: [UInt32] = []
        for index in 0..<3 {
            #expect(rig.submit(UInt64(index), on: index).isAccepted)
            _ = rig.exchange(index)
            let command = try #require(rig.ends[index].requests.first)
            cmdSNs.append(command.header.cmdSN)
        }
        #expect(cmdSNs[1] == cmdSNs[0] &+ 1 && cmdSNs[2] == cmdSNs[0] &+ 2, "CmdSN is the session's")
        // The answer on its own connection ends a command; on another it is a violation.
        rig.put(PDU(header: .scsiResponse(
            tag: rig.ends[1].requests[0].header.initiatorTaskTag, status: .good, numbers: rig.numbers(1, expCmdSN: cmdSNs[2]))), 1)
        #expect(rig.nextCompletion()?.token == 1)
        let tag = rig.ends[2].requests[0].header.initiatorTaskTag
        rig.put(PDU(header: .scsiResponse(tag: tag, status: .good, numbers: rig.numbers(0, expCmdSN: cmdSNs[2]))), 0)
        #expect(rig.events.suffix(3) == [
            .commandAbandoned(token: 0, wasSent: true), .commandAbandoned(token: 2, wasSent: true),
            .sessionFailed(.violation(.wrongConnection(.scsiResponse, tag: tag))),
        ])
    }

    @Test func aConnectionThatCannotJoinLeavesTheSessionAlone() {
        let rig = LoginRig(maxConnections: 2)
        rig.open(0)
        rig.decision = .reject(.tooManyConnections)
        rig.open(1)
        let second = ConnectionIndex(rawValue: 1)
        #expect(rig.events.last == .connectionFailed(second, .login(.refused(.tooManyConnections))))
        guard case .loggedIn = rig.session.state else {
            Issue.record("the session must go on")
            return
        }
        rig.logins[1] = TargetLogin(cryptography: TestCryptography())
        rig.ends[1] = LoginRig.TargetEndBox()
        rig.decision = nil
        rig.open(1)
        #expect(rig.events.last == .connectionAdded(second), "and it may try again")
    }
}
