import SCSI
import Testing
import Timebase

@testable import ISCSI

/// A session that was renewed is as good as a new one, in the old one's memory.
struct InitiatorSessionRenewalTests {
    private static let now = Instant(nanoseconds: 2_000_000_000)

    private func output(_ session: inout InitiatorSession) -> [UInt8] {
        var bytes: [UInt8] = []
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 16) { segments in
            while true {
                let count = session.output(.leading, into: segments)
                guard count > 0 else { break }
                var byteCount = 0
                for segment in segments[..<count] {
                    bytes += segment
                    byteCount += segment.count
                }
                session.outputSent(.leading, byteCount: byteCount)
            }
        }
        return bytes
    }

    /// All that a session sends for one login and some commands, which stay open.
    private func conversation(
        _ session: inout InitiatorSession, _ rig: SessionRig, _ memory: UnsafeMutableRawBufferPointer
    ) -> [UInt8] {
        session.connectionOpened(.leading, at: Self.now)
        var sent = output(&session)
        session.enterFullFeature(
            .leading,
            LoginResult(
                parameters: rig.parameters, tsih: 8, portalGroupTag: 1, targetAlias: nil, authenticatedWith: nil,
                cmdSN: 50, expStatSN: 4, expCmdSN: 50, maxCmdSN: 200),
            at: Self.now)
        for token in 1...40 as ClosedRange<UInt64> {
            let direction: DataDirection = token % 3 == 0 ? .write : .read
            let result = session.submit(
                rig.request(direction, token: token, memory: memory, offset: token), on: .leading, at: Self.now)
            #expect(result.isAccepted)
        }
        _ = session.submitTaskManagement(
            .abortTaskSet, lun: LogicalUnitNumber(index: 3)!, token: 99, on: .leading, at: Self.now)
        sent += output(&session)
        return sent
    }

    /// Leaves a bit of everything behind: requests of all kinds, half-sent data, a command let go of, results untaken.
    private func use(_ rig: SessionRig, _ memory: UnsafeMutableRawBufferPointer) {
        for token in 1...20 as ClosedRange<UInt64> { rig.submit(token % 2 == 0 ? .write : .read, token: token, memory: memory) }
        rig.flush()
        for token in 21...30 as ClosedRange<UInt64> { rig.submit(.write, token: token, memory: memory) }
        rig.session.detach(4)
        rig.session.detach(21)
        _ = rig.session.submitTaskManagement(
            .abortTaskSet, lun: LogicalUnitNumber(index: 3)!, token: 7, on: .leading, at: rig.now)
        rig.session.connectionClosed(.leading, reason: .endOfStream, at: rig.now)
    }

    private func expectIdle(_ rig: SessionRig, isOver: Bool) {
        let (hasEnded, state, count) = (rig.session.hasEnded, rig.session.state, rig.session.outstandingCommandCount)
        #expect(hasEnded == isOver)
        #expect(count == 0)
        guard !isOver else { return }
        let isBusy = rig.session.hasResults || rig.session.needsToSend(.leading)
        let deadline = rig.session.nextDeadline
        #expect(state == .free && !isBusy && deadline == .distantFuture)
    }

    @Test func aRenewedSessionSendsWhatANewOneDoes() {
        let memory = UnsafeMutableRawBufferPointer.filled(300_000)
        defer { memory.deallocate() }
        let rig = SessionRig(window: 256, capacity: 64, maxConnections: 2)
        var fresh = InitiatorSession(settings: rig.session.settings, cryptography: TestCryptography(), crc32c: CRC32C.table)
        let expected = conversation(&fresh, rig, memory)
        for _ in 0..<3 {
            use(rig, memory)
            expectIdle(rig, isOver: true)
            rig.session.renew()
            expectIdle(rig, isOver: false)
            let sent = conversation(&rig.session, rig, memory)
            #expect(sent == expected)
            let count = rig.session.outstandingCommandCount
            #expect(count == 40)
        }
    }

    @Test func aRenewedSessionHasTheMemoryOfTheOldOne() {
        let memory = UnsafeMutableRawBufferPointer.filled(100_000)
        defer { memory.deallocate() }
        let rig = SessionRig(capacity: 64, maxConnections: 2)
        let (slots, bursts) = (rig.session.table.slots, rig.session.bursts.bursts)
        for _ in 0..<3 {
            use(rig, memory)
            rig.session.renew()
            let (slotsNow, burstsNow) = (rig.session.table.slots, rig.session.bursts.bursts)
            #expect(slotsNow == slots && burstsNow == bursts)
            let (capacity, used) = (rig.session.table.commandCapacity, rig.session.table.usedCapacity)
            #expect(capacity == 64 && used == 0)
            _ = conversation(&rig.session, rig, memory)
        }
    }

    @Test func whatANewSessionNeverUsedCanBeRenewedToo() {
        let memory = UnsafeMutableRawBufferPointer.filled(100_000)
        defer { memory.deallocate() }
        let rig = SessionRig(capacity: 64)
        var fresh = InitiatorSession(settings: rig.session.settings, cryptography: TestCryptography(), crc32c: CRC32C.table)
        var renewed = InitiatorSession(settings: rig.session.settings, cryptography: TestCryptography(), crc32c: CRC32C.table)
        renewed.renew()
        let (first, second) = (conversation(&renewed, rig, memory), conversation(&fresh, rig, memory))
        #expect(first == second)
    }
}
