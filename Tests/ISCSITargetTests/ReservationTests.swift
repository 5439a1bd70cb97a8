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
}
