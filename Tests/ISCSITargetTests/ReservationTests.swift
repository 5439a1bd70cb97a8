import AsyncIO
import ISCSI
import SCSI
import Testing

@testable import ISCSITarget

@Suite struct ReservationTests {
    let bench = DeviceBench()

    private func out(
        _ action: PersistentReserveOutAction, _ nexus: NexusIndex, key: UInt64, new: UInt64 = 0,
        type: ReservationType = .init(rawValue: 0)
    ) -> DeviceBench.Outcome {
        bench.run(
            .persistentReserveOut(action, type: type), nexus, dataOut: ReservationParameters(key: key, actionKey: new).encode())
    }

    private func keys(_ nexus: NexusIndex) -> [UInt64] {
        RegisteredKeys(parsing: bench.run(.persistentReserveIn(.readKeys, allocationByteCount: 512), nexus).data)?.keys ?? []
    }

    private func holder(_ nexus: NexusIndex) -> ReservationReport.Holder? {
        ReservationReport(parsing: bench.run(.persistentReserveIn(.readReservation, allocationByteCount: 64), nexus).data)?
            .reservation
    }

    /// Whether a nexus may read and may write.
    private func access(_ nexus: NexusIndex) -> [Bool] {
        [
            bench.run(.read(lba: 0, blockCount: 1), nexus).status == .good,
            bench.run(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512)).status == .good,
        ]
    }

    @Test(arguments: [
        (ReservationType.writeExclusive, [true, false], [true, false]),
        (.exclusiveAccess, [false, false], [false, false]),
        (.writeExclusiveRegistrantsOnly, [true, true], [true, false]),
        (.exclusiveAccessRegistrantsOnly, [true, true], [false, false]),
        (.writeExclusiveAllRegistrants, [true, true], [true, false]),
        (.exclusiveAccessAllRegistrants, [true, true], [false, false]),
    ])
    func eachTypeKeepsOutWhomItShould(type: ReservationType, registered: [Bool], stranger: [Bool]) {
        let (a, b, c) = (bench.nexus(1), bench.nexus(2), bench.nexus(3))
        #expect(out(.register, a, key: 0, new: 1).status == .good)
        #expect(out(.register, b, key: 0, new: 2).status == .good)
        #expect(out(.reserve, c, key: 0, type: type).status == .reservationConflict, "not registered")
        #expect(out(.reserve, a, key: 1, type: type).status == .good)
        #expect(out(.reserve, a, key: 1, type: type).status == .good, "the same again")
        #expect(access(a) == [true, true])
        #expect(access(b) == registered)
        #expect(access(c) == stranger)
        #expect(bench.run(.testUnitReady(), c).status == .good)
        #expect(bench.run(.readCapacity16(), c).status == .good)
        #expect(holder(c) == .init(key: type.isAllRegistrants ? 0 : 1, type: type))
        #expect(out(.release, a, key: 1, type: type == .writeExclusive ? .exclusiveAccess : .writeExclusive).sense?.key == .illegalRequest)
        #expect(out(.release, a, key: 1, type: type).status == .good)
        #expect(holder(c) == nil)
        let told = bench.run(.testUnitReady(), b).additional
        #expect(told == (type.admitsRegistrants ? .reservationsReleased : nil))
    }

    @Test func preemptionTakesOverAndTells() {
        let (a, b) = (bench.nexus(1), bench.nexus(2))
        _ = out(.register, a, key: 0, new: 1)
        _ = out(.registerAndIgnoreExistingKey, b, key: 77, new: 2)
        _ = out(.reserve, a, key: 1, type: .exclusiveAccess)
        #expect(out(.preempt, b, key: 2, new: 9, type: .exclusiveAccess).status == .reservationConflict, "nobody has that key")
        #expect(out(.preemptAndAbort, b, key: 2, new: 1, type: .writeExclusive).status == .good)
        #expect(holder(b) == .init(key: 2, type: .writeExclusive))
        #expect(keys(b) == [2])
        #expect(bench.run(.testUnitReady(), a).additional == .registrationsPreempted)
        #expect(access(a) == [true, false])
        #expect(out(.clear, b, key: 2).status == .good)
        #expect(keys(b) == [] && holder(b) == nil)
    }

    @Test func aRegistrationOutlivesItsSessionAndEndsItsReservationWithIt() throws {
        let (a, b) = (bench.nexus(1), bench.nexus(2))
        _ = out(.register, a, key: 0, new: 1)
        _ = out(.register, b, key: 0, new: 2)
        _ = out(.reserve, a, key: 1, type: .writeExclusiveRegistrantsOnly)
        bench.node.nexusEnded(a)
        #expect(keys(b) == [1, 2])
        let again = bench.nexus(1)
        let status = try #require(
            FullReservationStatus(parsing: bench.run(.persistentReserveIn(.readFullStatus, allocationByteCount: 1024), again).data))
        #expect(status.registrations.map(\.heldType) == [.writeExclusiveRegistrantsOnly, nil])
        #expect(status.registrations[0].transportID.iSCSIPort?.name == "iqn.2026-11.org.example:host")
        #expect(out(.register, again, key: 5, new: 0).status == .reservationConflict, "a wrong key")
        #expect(out(.register, again, key: 1, new: 0).status == .good)
        #expect(bench.run(.testUnitReady(), b).additional == .reservationsReleased)
        #expect(holder(b) == nil)
    }

    @Test func theLastOfAllRegistrantsTakesTheReservationAlong() {
        let (a, b) = (bench.nexus(1), bench.nexus(2))
        _ = out(.register, a, key: 0, new: 1)
        _ = out(.register, b, key: 0, new: 2)
        _ = out(.reserve, a, key: 1, type: .exclusiveAccessAllRegistrants)
        _ = out(.register, a, key: 1, new: 0)
        #expect(holder(b)?.type == .exclusiveAccessAllRegistrants)
        #expect(access(a) == [false, false])
        _ = out(.register, b, key: 2, new: 0)
        #expect(holder(b) == nil)
        #expect(access(a) == [true, true])
    }

    @Test func reserveAndReleaseHoldTheUnitForOneNexus() {
        let (a, b) = (bench.nexus(1), bench.nexus(2))
        #expect(bench.run(.reserve6(), a).status == .good)
        #expect(bench.run(.reserve6(), b).status == .reservationConflict)
        #expect(bench.run(.testUnitReady(), b).status == .reservationConflict)
        #expect(bench.run(.inquiry(allocationByteCount: 36), b).status == .good)
        #expect(bench.run(.release6(), b).status == .good, "changes nothing")
        #expect(access(b) == [false, false])
        bench.node.nexusEnded(a)
        #expect(access(b) == [true, true])
        _ = out(.register, b, key: 0, new: 1)
        #expect(bench.run(.reserve6(), b).status == .reservationConflict, "not beside registrations")
    }

    @Test func parameterListsOfTheWrongLengthAreRefused() {
        let nexus = bench.nexus()
        let list = ReservationParameters(key: 0, actionKey: 1).encode()
        #expect(
            bench.run(.persistentReserveOut(.register, parameterByteCount: 8), nexus, dataOut: list).additional
                == .parameterListLengthError)
        #expect(bench.run(.persistentReserveOut(.register), nexus, dataOut: Array(list[..<10])).additional == .parameterListLengthError)
        #expect(keys(nexus) == [])
    }

    // MARK: registrations of others, and loss of power

    private func transportID(_ qualifier: UInt16) -> TransportID {
        TransportID(iSCSIName: "iqn.2026-11.org.example:host", isid: ISID.random(1, qualifier: qualifier).rawValue)
    }

    private func register(_ nexus: NexusIndex, _ parameters: ReservationParameters, on bench: DeviceBench? = nil) -> DeviceBench.Outcome {
        let list = parameters.encode()
        return (bench ?? self.bench).run(
            .persistentReserveOut(.register, parameterByteCount: UInt32(list.count)), nexus, dataOut: list)
    }

    @Test func aRegistrationCanCountForAllTargetPorts() {
        let a = bench.nexus(1)
        let through2 = bench.nexus(1, portGroup: 1)
        #expect(register(a, ReservationParameters(key: 0, actionKey: 5, coversAllTargetPorts: true)).status == .good)
        #expect(keys(a) == [5, 5])
        #expect(out(.reserve, through2, key: 5, type: .writeExclusive).status == .good)
        #expect(access(a) == [true, false])
    }

    @Test func otherInitiatorPortsAreRegisteredBeforeTheyLogIn() {
        let a = bench.nexus(1)
        #expect(register(a, ReservationParameters(key: 0, actionKey: 5, initiatorPorts: [transportID(2), transportID(3)])).status == .good)
        #expect(keys(a) == [5, 5, 5])
        let b = bench.nexus(2)
        #expect(out(.reserve, b, key: 5, type: .writeExclusive).status == .good)
        #expect(
            register(a, ReservationParameters(key: 5, actionKey: 6, initiatorPorts: [transportID(4)])).additional
                == .invalidFieldInParameterList, "only with a first registration")
        #expect(keys(a) == [5, 5, 5])
    }

    @Test func aReservationMovesToAnotherPort() throws {
        let a = bench.nexus(1)
        func move(_ nexus: NexusIndex, key: UInt64, to qualifier: UInt16, unregisters: Bool = false, port: UInt16 = 2) -> DeviceBench.Outcome {
            let list = RegisterAndMoveParameters(
                key: key, actionKey: 9, unregisters: unregisters, relativeTargetPort: port, initiatorPort: transportID(qualifier)
            ).encode()
            return bench.run(.persistentReserveOut(.registerAndMove, parameterByteCount: UInt32(list.count)), nexus, dataOut: list)
        }
        #expect(move(a, key: 1, to: 2).status == .reservationConflict, "not registered")
        _ = out(.register, a, key: 0, new: 1)
        #expect(move(a, key: 1, to: 2).additional == .invalidFieldInCommand, "nothing is reserved")
        _ = out(.reserve, a, key: 1, type: .writeExclusive)
        #expect(move(a, key: 1, to: 1, port: 1).additional == .invalidFieldInParameterList, "to itself")
        #expect(move(a, key: 1, to: 2, port: 7).additional == .invalidFieldInParameterList, "no such port")
        #expect(move(a, key: 1, to: 2, unregisters: true).status == .good)
        let b = bench.nexus(2, portGroup: 1)
        #expect(keys(b) == [9])
        #expect(holder(b) == .init(key: 9, type: .writeExclusive))
        #expect(access(b) == [true, true] && access(a) == [true, false])
    }

    @Test func whatIsToOutliveALossOfPowerDoes() throws {
        let store = MemoryStore()
        let first = DeviceBench(reservationStore: store)
        let a = first.nexus(1)
        #expect(register(a, ReservationParameters(key: 0, actionKey: 5, persistsThroughPowerLoss: true), on: first).status == .good)
        #expect(first.run(.persistentReserveOut(.reserve, type: .exclusiveAccess), a, dataOut: ReservationParameters(key: 5).encode()).status == .good)
        let second = DeviceBench(reservationStore: store)
        try second.unit.restoreReservations()
        let (again, stranger) = (second.nexus(1), second.nexus(2))
        #expect(second.run(.read(lba: 0, blockCount: 1), again).status == .good)
        #expect(second.run(.read(lba: 0, blockCount: 1), stranger).status == .reservationConflict)
        store.isBroken = true
        #expect(register(again, ReservationParameters(key: 5, actionKey: 6, persistsThroughPowerLoss: true), on: second).sense?.key == .hardwareError)
        store.isBroken = false
        #expect(second.run(.persistentReserveOut(.release, type: .exclusiveAccess), again, dataOut: ReservationParameters(key: 5).encode()).status == .good, "the key did not change")
        #expect(register(again, ReservationParameters(key: 5, actionKey: 5), on: second).status == .good)
        #expect(store.bytes == nil, "APTPL 0 forgets")
        #expect(
            register(bench.nexus(1), ReservationParameters(key: 0, actionKey: 5, persistsThroughPowerLoss: true)).additional
                == .invalidFieldInParameterList, "nowhere to keep it")
    }

    @Test func aStrangerWhoRegistersNothingChangesNothing() {
        let store = MemoryStore()
        let bench = DeviceBench(reservationStore: store)
        let holder = bench.nexus(1)
        _ = register(holder, ReservationParameters(key: 0, actionKey: 5, persistsThroughPowerLoss: true), on: bench)
        _ = bench.run(.persistentReserveOut(.reserve, type: .writeExclusive), holder, dataOut: ReservationParameters(key: 5).encode())
        let saved = store.bytes
        #expect(saved != nil)
        #expect(register(bench.nexus(2), ReservationParameters(key: 0, actionKey: 0), on: bench).status == .good)
        #expect(store.bytes == saved)
    }

    @Test func aReservationOutlivesThePortGroupOfAnotherRegistrantButNotItsHolders() throws {
        let store = MemoryStore()
        let first = DeviceBench(reservationStore: store)
        for nexus in [first.nexus(1), first.nexus(2)] {
            _ = register(nexus, ReservationParameters(key: 0, actionKey: 5, persistsThroughPowerLoss: true), on: first)
        }
        _ = first.run(.persistentReserveOut(.reserve, type: .writeExclusive), first.nexus(2), dataOut: ReservationParameters(key: 5).encode())
        let image = try ReservationImage(parsing: #require(store.bytes))
        for (gone, type) in [(0, ReservationType.writeExclusive), (1, .writeExclusive), (1, .writeExclusiveAllRegistrants)] {
            var changed = image
            changed.registrations[gone].groupTag = 99
            changed.reservation?.type = type
            store.bytes = changed.encode()
            let second = DeviceBench(reservationStore: store)
            guard gone == 0 || type != .writeExclusive else {
                #expect(throws: IOError.self) { try second.unit.restoreReservations() }
                continue
            }
            try second.unit.restoreReservations()
            #expect(second.run(.write(lba: 0, blockCount: 1), second.nexus(3), dataOut: bytes(512)).status == .reservationConflict)
            #expect(second.run(.write(lba: 0, blockCount: 1), second.nexus(UInt16(2 - gone)), dataOut: bytes(512)).status == .good)
        }
    }

    /// Nobody gets past a reservation that may exist.
    @Test func aUnitWhoseReservationsCannotBeReadIsNotReadyUntilTheyCan() throws {
        let store = MemoryStore()
        let bench = DeviceBench(reservationStore: store)
        let (holder, stranger) = (bench.nexus(1), bench.nexus(2))
        _ = register(holder, ReservationParameters(key: 0, actionKey: 5, persistsThroughPowerLoss: true), on: bench)
        _ = bench.run(.persistentReserveOut(.reserve, type: .writeExclusive), holder, dataOut: ReservationParameters(key: 5).encode())
        store.isUnreadable = true
        #expect(throws: IOError.self) { try bench.unit.powerCycle() }
        for nexus in [holder, stranger] {
            let write = bench.run(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512))
            #expect(write.sense?.key == .notReady && write.additional == .manualInterventionRequired)
            #expect(bench.run(.testUnitReady(), nexus).sense?.key == .notReady)
            #expect(bench.run(.persistentReserveIn(.readKeys, allocationByteCount: 64), nexus).sense?.key == .notReady)
            #expect(bench.run(.inquiry(allocationByteCount: 96), nexus).status == .good)
        }
        store.isUnreadable = false
        #expect(bench.run(.testUnitReady(), stranger).status == .good)
        #expect(bench.run(.write(lba: 0, blockCount: 1), stranger, dataOut: bytes(512)).status == .reservationConflict, "it is still there")
        #expect(bench.run(.write(lba: 0, blockCount: 1), holder, dataOut: bytes(512)).status == .good)
    }

    @Test func aSavedStateIsReadStrictly() throws {
        var image = ReservationImage()
        image.registrations = [.init(key: 0xFFFF_FFFF_FFFF_FFFF, isid: .random(1, qualifier: 2), groupTag: 7, initiatorName: "a b\n%")]
        image.reservation = (.writeExclusive, 0)
        #expect(try ReservationImage(parsing: image.encode()) == image)
        let text = String(decoding: image.encode(), as: UTF8.self)
        for (wrong, line) in [
            ("", 1), ("other 1\n", 1), (text + "x\n", 4), (text.replacing("registration f", with: "registration g"), 2),
            (text.replacing("reservation 1", with: "reservation 2"), 3), (String(text.dropLast()), 1),
        ] {
            #expect(throws: ReservationImage.BadLine(number: line)) { try ReservationImage(parsing: Array(wrong.utf8)) }
        }
    }

    @Test func preemptAndAbortWaitsForWhatItAborts() {
        let backend = LateBackend()
        let bench = DeviceBench(backend: backend)
        let (a, b) = (bench.nexus(1), bench.nexus(2))
        _ = register(a, ReservationParameters(key: 0, actionKey: 1), on: bench)
        _ = register(b, ReservationParameters(key: 0, actionKey: 2), on: bench)
        let write = bench.begin(.write(lba: 0, blockCount: 1), a, dataOut: bytes(512))
        let preempt = bench.begin(
            .persistentReserveOut(.preemptAndAbort, type: .writeExclusive), b,
            dataOut: ReservationParameters(key: 2, actionKey: 1).encode())
        #expect(bench.results[preempt] == nil)
        backend.finishOne()
        #expect(bench.aborted == [write])
        #expect(bench.outcome(preempt)?.status == .good)
    }
}

private final class MemoryStore: ReservationStore {
    var bytes: [UInt8]?
    var isBroken = false
    var isUnreadable = false
    func load() throws(IOError) -> [UInt8]? {
        if isUnreadable { throw IOError(code: 5, operation: "read") }
        return bytes
    }
    func save(_ bytes: [UInt8]?) throws(IOError) {
        if isBroken { throw IOError(code: 5, operation: "write") }
        self.bytes = bytes
    }
}
