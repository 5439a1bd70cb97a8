import Foundation
import ISCSI
import SCSI
import TestSupport
import Testing

@testable import ISCSITarget

/// An initiator of a few blocking calls: what libiscsi's tools do not send.
private final class RawInitiator {
    private let descriptor: Int32
    private var nextTag: UInt32 = 1

    init(_ portal: LoopbackPortal, qualifier: UInt16) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var limit = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = portal.port.bigEndian
        inet_pton(AF_INET, portal.address, &address.sin_addr)
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        try #require(code == 0)
        let text = "InitiatorName=iqn.2026-11.org.example:raw\0TargetName=\(RunningTarget.name)\0SessionType=Normal\0"
        let login = BasicHeaderSegment.loginRequest(
            LoginFlags(current: .operationalNegotiation, next: .fullFeature), isid: .random(1, qualifier: qualifier), tsih: 0, connectionID: 0, tag: 0, cmdSN: 1, expStatSN: 0,
            dataByteCount: text.utf8.count)
        send(login, Array(text.utf8))
        let answer = try #require(try receive())
        try #require(answer.opcode == .loginResponse && answer.flags & 0x83 == 0x83)
    }

    deinit { close(descriptor) }

    func send(_ header: BasicHeaderSegment, _ data: [UInt8] = []) {
        var bytes = [UInt8](repeating: 0, count: 48)
        bytes.withUnsafeMutableBytes { header.store(to: $0.baseAddress!) }
        bytes += data + [UInt8](repeating: 0, count: (4 - data.count % 4) % 4)
        let count = bytes.withUnsafeBytes { Foundation.send(descriptor, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL)) }
        #expect(count == bytes.count)
    }

    func manage(_ function: TaskManagementFunction) {
        nextTag += 1
        send(.taskManagementRequest(function, lun: LogicalUnitNumber(index: 0)!, tag: nextTag, cmdSN: 1, expStatSN: 1))
    }

    /// The next PDU's header; nil where the target ended the connection.
    func receive() throws -> BasicHeaderSegment? {
        guard let bytes = receive(48) else { return nil }
        let header = bytes.withUnsafeBytes { BasicHeaderSegment(loadingFrom: $0.baseAddress!) }
        let padded = (header.dataSegmentByteCount + 3) / 4 * 4
        if padded > 0 { _ = receive(padded) }
        return header
    }

    private func receive(_ count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let step = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress! + done, count - done, 0) }
            if step < 0 { #expect(errno == ECONNRESET, "the target neither speaks nor leaves") }
            guard step > 0 else { return nil }
            done += step
        }
        return bytes
    }
}

@Suite(.serialized) struct ColdResetTests {
    /// RFC 7143 section 11.5.1: TARGET COLD RESET ends all sessions of the target, whoever's they are.
    @Test func aColdResetIsAnsweredAndEndsEverySession() throws {
        let running = try RunningTarget(portalCount: 2, units: ["0=memory,size=16M"])
        let asking = try RawInitiator(running.portals[0], qualifier: 1)
        let other = try RawInitiator(running.portals[1], qualifier: 2)
        #expect(try running.onTarget { $0.sessionCount } == 2)
        asking.manage(.targetColdReset)
        let answer = try #require(try asking.receive())
        #expect(answer.opcode == .taskManagementResponse && answer[byte: 2] == 0, "function complete")
        #expect(try asking.receive() == nil, "then the connection ends")
        #expect(try other.receive() == nil)
        #expect(try running.onTarget { $0.sessionCount } == 0)
        // The next session learns of it.
        #expect(try CommandRunner.runBlocking("iscsi-inq", [running.url(0)]).succeeded)
        try running.stop()
    }

    @Test func aWarmResetEndsNoSession() throws {
        let running = try RunningTarget(units: ["0=memory,size=16M"])
        let asking = try RawInitiator(running.portals[0], qualifier: 1)
        asking.manage(.targetWarmReset)
        #expect(try asking.receive()?.opcode == .taskManagementResponse)
        asking.manage(.logicalUnitReset)
        #expect(try asking.receive()?.opcode == .taskManagementResponse, "it goes on")
        #expect(try running.onTarget { $0.sessionCount } == 1)
        try running.stop()
    }
}
