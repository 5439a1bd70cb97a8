import Cryptography
import Foundation
import ISCSI
import SCSI
import TestSupport

/// One connection of a session, by hand: blocking, PDU by PDU.
final class WireInitiator {
    struct Gone: Error {}
    struct Silent: Error {}

    private let descriptor: Int32
    private var decoder = PDUDecoder(crc32c: CRC32C.table, maxDataSegmentByteCount: 1 << 24)
    private var input: [UInt8] = []
    private(set) var tsih: UInt16 = 0
    private(set) var parameters = NegotiatedParameters()
    let isid: ISID
    /// The session's next CmdSN, as far as this connection knows.
    var cmdSN: UInt32 = 1
    var expStatSN: UInt32 = 0

    /// Logs in; `session`: joins its session.
    init(
        _ portal: LoopbackPortal, isid: ISID = ISID(rawValue: 0x8000_0000_0001), session: WireInitiator? = nil, cid: UInt16 = 0,
        level: Int = 0
    ) throws {
        self.isid = isid
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(portal.port).bigEndian
        inet_pton(AF_INET, portal.address, &address.sin_addr)
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, .init($0), socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw Gone() }
        var settings = LoginSettings(
            initiatorName: "iqn.2026-11.org.example:host", targetName: RunningTarget.name, isid: isid)
        settings.connectionID = cid
        settings.operational.maxConnections = 8
        settings.operational.errorRecoveryLevel = level
        if let session {
            settings.tsih = session.tsih
            settings.cmdSN = session.cmdSN
            settings.sessionParameters = session.parameters
        }
        var login = InitiatorLogin(settings: settings, cryptography: SystemCryptography())
        var action = login.start()
        while case .send(let pdu) = action {
            try send(pdu.header, pdu.data)
            let answer = try receive()
            action = answer.data.withUnsafeBytes { login.received(answer.header, data: $0) }
        }
        guard case .finished(let finished) = action else { throw Gone() }
        tsih = finished.tsih
        parameters = finished.parameters
        cmdSN = finished.cmdSN
        expStatSN = finished.expStatSN
    }

    deinit { close(descriptor) }

    func send(_ header: BasicHeaderSegment, _ data: [UInt8] = []) throws {
        let bytes = PDU(header: header, data: data).encoded()
        guard Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else { throw Gone() }
    }

    /// The next PDU; throws where the connection ends, or nothing comes in time.
    func receive(within milliseconds: Int32 = 10_000) throws -> PDU {
        while true {
            if let pdu = take() { return pdu }
            var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&poller, 1, milliseconds) > 0 else { throw Silent() }
            var bytes = [UInt8](repeating: 0, count: 65_536)
            let count = recv(descriptor, &bytes, bytes.count, 0)
            guard count > 0 else { throw Gone() }
            input += bytes[..<count]
        }
    }

    private func take() -> PDU? {
        var pdu: PDU?
        let rest = input.withUnsafeBytes { all in
            var rest = all
            while pdu == nil {
                switch decoder.next(&rest) {
                case .header: decoder.collect(limit: 1 << 24)
                case .complete: pdu = PDU(header: decoder.header, data: Array(decoder.collectedData))
                default: return 0
                }
            }
            return rest.count
        }
        input.removeFirst(input.count - rest)
        return pdu
    }

    // MARK: requests; all on LUN 0

    static let lun = LogicalUnitNumber(index: 0)!

    func read(_ tag: UInt32, lba: UInt32, cmdSN: UInt32) throws {
        try send(
            .scsiCommand(
                .read10(lba: lba, blockCount: 1), lun: Self.lun, tag: tag, flags: [.final, .read], expectedDataTransferByteCount: 512,
                cmdSN: cmdSN, expStatSN: expStatSN))
    }

    func write(_ tag: UInt32, lba: UInt32, fill: UInt8, cmdSN: UInt32) throws {
        try send(
            .scsiCommand(
                .write10(lba: lba, blockCount: 1), lun: Self.lun, tag: tag, flags: [.final, .write], expectedDataTransferByteCount: 512,
                immediateDataByteCount: 512, cmdSN: cmdSN, expStatSN: expStatSN), Array(repeating: fill, count: 512))
    }

    /// Until the unit attention of a new nexus is told.
    func settle() throws {
        for tag: UInt32 in 9000..<9004 {
            try send(
                .scsiCommand(
                    CommandDescriptorBlock(operationCode: 0), lun: Self.lun, tag: tag, flags: .final, cmdSN: cmdSN, expStatSN: expStatSN))
            cmdSN &+= 1
            if try receive().header.status == .good { return }
        }
    }
}
