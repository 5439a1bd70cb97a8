import SCSI
import Testing

@testable import ISCSI

/// GOOD for a write says that it is on the medium. Where the target cannot have its data, that is not taken for it.
@Suite struct WriteCompletenessTests {
    let memory = UnsafeMutableRawBufferPointer.filled(1 << 20)

    private func rig(_ change: (inout NegotiatedParameters) -> Void = { _ in }) -> SessionRig {
        var parameters = SessionRig.defaults()
        parameters.maxSendDataSegmentByteCount = 65_536
        change(&parameters)
        return SessionRig(parameters)
    }

    private func write(_ rig: SessionRig, _ byteCount: Int) -> UInt32 {
        rig.submit(.write, token: 1, memory: UnsafeMutableRawBufferPointer(rebasing: memory[..<byteCount]))
        return rig.session.table.tag(of: 0)
    }

    private func good(_ rig: SessionRig, _ tag: UInt32, _ status: SCSIStatus = .good, residual: Residual = .none) {
        rig.expCmdSN = 101
        rig.send(.scsiResponse(tag: tag, status: status, residual: residual, numbers: rig.nextNumbers()))
    }

    private func r2t(_ rig: SessionRig, _ tag: UInt32, at offset: Int, _ byteCount: Int, sn: UInt32 = 0) {
        rig.send(.readyToTransfer(
            lun: LogicalUnitNumber(index: 3)!, tag: tag, targetTransferTag: 9 + sn, r2tSN: sn, bufferOffset: UInt32(offset),
            desiredDataTransferByteCount: UInt32(byteCount), numbers: rig.numbers))
    }

    private func expectShort(_ rig: SessionRig, by missing: Int, of byteCount: Int) {
        #expect(rig.completions.map(\.outcome) == [.status(.good, sense: nil)] && rig.failure == nil)
        #expect(rig.completions.first?.residual == .underflow(UInt32(missing)))
        #expect(rig.completions.first?.transferredByteCount == byteCount - missing)
    }

    @Test func dataThatWasNeverAskedForIsMissing() {
        let rig = rig()
        let tag = write(rig, 1 << 20)
        #expect(rig.sent().map(\.data.count) == [65_536], "the first burst")
        good(rig, tag)
        expectShort(rig, by: 1 << 20 - 65_536, of: 1 << 20)
    }

    @Test func dataThatWasAskedForAndNotSentIsMissing() {
        let rig = rig { $0.initialR2T = true; $0.immediateData = false }
        let tag = write(rig, 16_384)
        _ = rig.sent()
        r2t(rig, tag, at: 0, 8192)
        r2t(rig, tag, at: 8192, 8192, sn: 1)
        good(rig, tag)
        expectShort(rig, by: 16_384, of: 16_384)
        #expect(rig.sent().isEmpty)
    }

    /// The burst that was promised goes out all the same, but nobody reads it.
    @Test func theRestOfABurstThatWasBegunIsMissing() {
        let rig = rig { $0.maxSendDataSegmentByteCount = 8192 }
        let tag = write(rig, 32_768)
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 2) { segments in
            let count = rig.session.output(.leading, into: segments)
            let byteCount = segments[..<count].reduce(0) { $0 + $1.count }
            #expect(byteCount == 48 + 8192)
            rig.session.outputSent(.leading, byteCount: byteCount)
        }
        good(rig, tag)
        _ = rig.sent()
        expectShort(rig, by: 32_768 - 8192, of: 32_768)
    }

    /// Queued, and the kernel has not taken it.
    @Test func dataThatHasNotLeftIsMissing() {
        let rig = rig()
        let tag = write(rig, 4096)
        good(rig, tag)
        _ = rig.sent()
        expectShort(rig, by: 4096, of: 4096)
    }

    @Test func aRangeThatNoR2TNamesIsMissing() {
        let rig = rig { $0.initialR2T = true; $0.immediateData = false }
        let tag = write(rig, 16_384)
        _ = rig.sent()
        r2t(rig, tag, at: 8192, 8192)
        #expect(rig.violation == .dataRange(.readyToTransfer, offset: 8192, byteCount: 8192))

        let free = self.rig { $0.initialR2T = true; $0.immediateData = false; $0.dataSequenceInOrder = false }
        let other = write(free, 16_384)
        _ = free.sent()
        r2t(free, other, at: 8192, 8192)
        #expect(free.sent().map(\.data.count) == [8192])
        good(free, other)
        expectShort(free, by: 8192, of: 16_384)
    }

    @Test func whatTheTargetCanHaveIsDone() {
        let rig = rig { $0.initialR2T = true; $0.immediateData = false; $0.dataSequenceInOrder = false }
        let tag = write(rig, 16_384)
        _ = rig.sent()
        r2t(rig, tag, at: 8192, 8192)
        r2t(rig, tag, at: 0, 8192, sn: 1)
        #expect(rig.sent().map(\.data.count) == [8192, 8192])
        good(rig, tag)
        #expect(rig.completions.first?.residual == Residual.none && rig.completions.first?.transferredByteCount == 16_384)
        // The send was not reported, but may have been made.
        let early = self.rig()
        let other = write(early, 4096)
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 4) { segments in
            _ = early.session.output(.leading, into: segments)
        }
        good(early, other)
        early.session.outputSent(.leading, byteCount: 48 + 4096)
        early.drain()
        #expect(early.completions.first?.residual == Residual.none)
    }

    @Test func whatTheTargetSaysOfItselfStands() {
        for (status, residual) in [
            (SCSIStatus.good, Residual.underflow(512)), (.busy, .none), (.taskAborted, .none), (.checkCondition, .underflow(3)),
        ] {
            let rig = rig { $0.initialR2T = true; $0.immediateData = false }
            let tag = write(rig, 16_384)
            _ = rig.sent()
            good(rig, tag, status, residual: residual)
            #expect(rig.completions.map(\.outcome) == [.status(status, sense: nil)])
            #expect(rig.completions.first?.residual == residual)
        }
    }

    /// Level 1: what a digest error took is asked for again, and counts once; a gap is no such thing.
    @Test func dataThatIsAskedForTwiceCountsOnce() {
        let rig = rig { $0.initialR2T = true; $0.immediateData = false; $0.errorRecoveryLevel = 1 }
        let tag = write(rig, 16_384)
        _ = rig.sent()
        r2t(rig, tag, at: 0, 8192)
        r2t(rig, tag, at: 4096, 4096, sn: 1)
        #expect(rig.sent().map(\.data.count) == [8192, 4096])
        good(rig, tag)
        expectShort(rig, by: 8192, of: 16_384)
        let gap = self.rig { $0.initialR2T = true; $0.immediateData = false; $0.errorRecoveryLevel = 1 }
        let other = write(gap, 16_384)
        _ = gap.sent()
        r2t(gap, other, at: 512, 512)
        #expect(gap.violation == .dataRange(.readyToTransfer, offset: 512, byteCount: 512))
    }

    /// What was asked for and lay unsent in a connection that was lost: the target asks again, on another one, or has not got it.
    @Test(arguments: [true, false]) func whatALostConnectionDidNotSendIsMissing(isBegun: Bool) throws {
        let rig = MultiConnectionRig(2, level: 2)
        let data = UnsafeMutableRawBufferPointer(rebasing: memory[..<100_000])
        rig.submit(.write, token: 1, on: 1, memory: data)
        let command = rig.sent(1)[0].header
        rig.expCmdSN = 101
        rig.put(1, .readyToTransfer(
            lun: command.lun, tag: command.initiatorTaskTag, targetTransferTag: 5, r2tSN: 0, bufferOffset: 65_536,
            desiredDataTransferByteCount: 34_464, numbers: ResponseNumbers(statSN: rig.ends[1].statSN, expCmdSN: 101, maxCmdSN: 163)))
        if isBegun {
            withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 2) { segments in
                _ = rig.session.output(rig.c(1), into: segments)
                rig.session.outputSent(rig.c(1), byteCount: segments[0].count + 10)
            }
        }
        rig.cut(1)
        let logout = try #require(rig.sent(0).first { $0.opcode == .logoutRequest })
        rig.put(0, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, time2Wait: 0, numbers: rig.numbers(0)))
        _ = rig.sent(0)
        rig.good(0, command.initiatorTaskTag)
        let completion = try #require(rig.completions.first)
        guard case .underflow(let missing) = completion.residual else {
            Issue.record("\(completion.residual)")
            return
        }
        #expect(missing >= 34_464 - 10 && completion.transferredByteCount == 100_000 - Int(missing))
    }
}
