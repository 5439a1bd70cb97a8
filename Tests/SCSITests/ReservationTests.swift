import SCSI
import Testing

@Suite struct ReservationTests {
    static let port = TransportID(iSCSIName: "iqn.2026-11.org.example:host-1", isid: 0x8012_3456_789A)

    @Test func transportIDsAreLaidOutAsTheStandardHasThem() throws {
        let bytes = Self.port.encode()
        let text = Array("iqn.2026-11.org.example:host-1,i,0x80123456789a".utf8)
        #expect(bytes.prefix(4) == [0x45, 0, 0, 48])
        #expect(bytes[4..<(4 + text.count)] == text[...])
        #expect(bytes.count == 52 && bytes.last == 0)
        let port = try #require(Self.port.iSCSIPort)
        #expect(port.name == "iqn.2026-11.org.example:host-1" && port.isid == 0x8012_3456_789A)
        let device = TransportID(iSCSIName: "iqn.a", isid: nil)
        #expect(device.encode().count == 24)
        #expect(device.iSCSIPort?.name == "iqn.a" && device.iSCSIPort?.isid == nil)
    }

    @Test func keysGoRound() {
        let keys = RegisteredKeys(generation: 9, keys: [1, .max])
        #expect(keys.encode() == hex("00000009 00000010 0000000000000001 ffffffffffffffff"))
        #expect(RegisteredKeys(parsing: keys.encode()) == keys)
        #expect(RegisteredKeys(parsing: Array(keys.encode().dropLast()))?.keys == [1])
    }

    @Test func reservationsGoRound() {
        let none = ReservationReport(generation: 1, reservation: nil)
        #expect(none.encode() == hex("00000001 00000000"))
        #expect(ReservationReport(parsing: none.encode()) == none)
        let held = ReservationReport(generation: 2, reservation: .init(key: 0xAB, type: .exclusiveAccessRegistrantsOnly))
        #expect(held.encode() == hex("00000002 00000010 00000000000000ab 00000000 00 06 0000"))
        #expect(ReservationReport(parsing: held.encode()) == held)
        // Not to know who holds it is not the same as nobody.
        #expect(ReservationReport(parsing: Array(held.encode().prefix(20))) == nil)
    }

    @Test func capabilitiesGoRound() {
        var capabilities = ReservationCapabilities()
        capabilities.handlesCompatibleReservation = true
        capabilities.canPersistThroughPowerLoss = true
        capabilities.persistsThroughPowerLoss = true
        capabilities.registersAllTargetPorts = true
        capabilities.allowCommands = 5
        capabilities.types = [.writeExclusive, .exclusiveAccess, .exclusiveAccessAllRegistrants]
        #expect(capabilities.encode() == hex("0008 15 d1 0a 01 0000"))
        #expect(ReservationCapabilities(parsing: capabilities.encode()) == capabilities)
        capabilities.types = nil
        #expect(ReservationCapabilities(parsing: capabilities.encode()) == capabilities)
    }

    @Test func fullStatusGoesRound() throws {
        let status = FullReservationStatus(
            generation: 4,
            registrations: [
                .init(key: 1, heldType: .writeExclusive, relativeTargetPort: 1, transportID: Self.port),
                .init(
                    key: 2, coversAllTargetPorts: true, heldType: nil, relativeTargetPort: 2,
                    transportID: TransportID(iSCSIName: "iqn.b", isid: 7)),
            ])
        let bytes = status.encode()
        #expect(FullReservationStatus(parsing: bytes) == status)
        #expect(FullReservationStatus(parsing: Array(bytes.dropLast()))?.registrations.count == 1)
    }

    @Test func outParametersGoRound() throws {
        let plain = ReservationParameters(key: 1, actionKey: 2, persistsThroughPowerLoss: true)
        #expect(plain.encode() == hex("0000000000000001 0000000000000002 00000000 01 000000"))
        #expect(try ReservationParameters(parsing: plain.encode()) == plain)
        let ports = ReservationParameters(
            key: 1, coversAllTargetPorts: true, initiatorPorts: [Self.port, TransportID(iSCSIName: "iqn.b", isid: nil)])
        #expect(try ReservationParameters(parsing: ports.encode()) == ports)
        let move = RegisterAndMoveParameters(
            key: 3, actionKey: 4, unregisters: true, persistsThroughPowerLoss: true, relativeTargetPort: 0x0102,
            initiatorPort: Self.port)
        #expect(try RegisterAndMoveParameters(parsing: move.encode()) == move)
    }

    @Test func wrongParameterListsAreRefused() {
        let list = ReservationParameters(key: 1).encode()
        #expect(throws: IllegalRequest.parameterListLength) { try ReservationParameters(parsing: Array(list.dropLast())) }
        #expect(throws: IllegalRequest.parameterListLength) { try ReservationParameters(parsing: list + [0]) }
        var ports = ReservationParameters(key: 1, initiatorPorts: [Self.port]).encode()
        ports[31] = 5
        #expect(throws: IllegalRequest.fieldInParameterList(byte: 28)) { try ReservationParameters(parsing: ports) }
        var move = RegisterAndMoveParameters(key: 1, actionKey: 2, relativeTargetPort: 1, initiatorPort: Self.port).encode()
        move[27] -= 4
        #expect(throws: IllegalRequest.fieldInParameterList(byte: 24)) { try RegisterAndMoveParameters(parsing: move) }
    }

    @Test func typesKnowWhomTheyExclude() {
        #expect(ReservationType.writeExclusive.isDefined && !ReservationType(rawValue: 2).isDefined)
        #expect(ReservationType.exclusiveAccess.excludesReads && !ReservationType.writeExclusive.excludesReads)
        #expect(ReservationType.writeExclusiveAllRegistrants.isAllRegistrants)
        #expect(ReservationType.writeExclusiveRegistrantsOnly.admitsRegistrants)
        #expect(!ReservationType.exclusiveAccess.admitsRegistrants)
        #expect(ReservationType(rawValue: 12).description == "reservation type 12")
    }
}
