import Testing

@testable import ISCSI

@Suite struct InitiatorSessionOutputQueueTests {
    @Test func adjacentHeadersLeaveAsOneSegment() {
        let rig = SessionRig()
        for token in 0..<20 { rig.submit(.none, token: UInt64(token)) }
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 4)
        defer { segments.deallocate() }
        let count = rig.session.output(.leading, into: segments)
        #expect(count == 1 && segments[0].count == 20 * 48)
    }

    @Test func dataIsNamedWhereTheCallerHasIt() {
        let rig = SessionRig()
        let memory = UnsafeMutableRawBufferPointer.filled(4096)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        rig.submit(.write, token: 2, memory: memory)
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 8)
        defer { segments.deallocate() }
        let count = rig.session.output(.leading, into: segments)
        #expect(segments[..<count].map(\.count) == [48, 4096, 48, 4096])
        #expect(segments[1].baseAddress == UnsafeRawPointer(memory.baseAddress!))
    }

    /// Against an array of bytes: any mixture of own and named bytes, gathered and sent in any pieces.
    @Test func whatComesOutIsWhatWentIn() {
        for seed in 0..<40 {
            var generator = SeededGenerator(seed: UInt64(seed))
            var queue = OutputQueue(byteCapacity: 1024, segmentCapacity: 16)
            let outside = UnsafeMutableRawBufferPointer.filled(300, seed: UInt64(seed))
            defer { outside.deallocate() }
            var expected: [UInt8] = []
            var actual: [UInt8] = []
            var next: UInt8 = 0
            let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 8)
            defer { segments.deallocate() }
            var refused = 0
            for _ in 0..<2000 {
                let count = Int.random(in: 1...200, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0, 1:
                    guard queue.hasRoom(for: count) else {
                        refused += 1
                        break
                    }
                    let memory = queue.appendOwnBytes(count)
                    for index in 0..<count {
                        memory.storeBytes(of: next, toByteOffset: index, as: UInt8.self)
                        expected.append(next)
                        next &+= 1
                    }
                case 2:
                    guard queue.hasRoom(for: 0) else {
                        refused += 1
                        break
                    }
                    let part = UnsafeRawBufferPointer(rebasing: outside[0..<count])
                    queue.appendCallerBytes(part)
                    expected += part
                default:
                    let filled = queue.gather(into: segments)
                    var bytes: [UInt8] = []
                    for segment in segments[..<filled] { bytes += segment }
                    let sent = Bool.random(using: &generator) ? bytes.count : Int.random(in: 0...bytes.count, using: &generator)
                    actual += bytes.prefix(sent)
                    queue.sent(sent)
                }
                let queued = queue.queuedByteCount
                #expect(queued == expected.count - actual.count)
            }
            while !queue.isEmpty {
                let filled = queue.gather(into: segments)
                var count = 0
                for segment in segments[..<filled] {
                    actual += segment
                    count += segment.count
                }
                queue.sent(count)
            }
            #expect(actual == expected)
            #expect(refused > 0, "the queue must have been full at times")
        }
    }
}

@Suite struct InitiatorSessionConnectionsTests {
    /// LOGICAL UNIT RESET answered on one connection while a read's data arrives on another.
    @Test func anAbortWaitsForDataArrivingOnAnotherConnection() throws {
        let rig = SessionRig(maxConnections: 2)
        let second = ConnectionIndex(rawValue: 1)
        rig.session.connections[1].phase = .loggingIn
        rig.session.enterFullFeature(
            second,
            LoginResult(
                parameters: rig.parameters, tsih: 7, portalGroupTag: 1, targetAlias: nil, authenticatedWith: nil,
                cmdSN: 100, expStatSN: 50, expCmdSN: 100, maxCmdSN: rig.maxCmdSN), at: rig.now)
        rig.drain()
        let memory = UnsafeMutableRawBufferPointer.filled(4096)
        defer { memory.deallocate() }
        let submitted = rig.session.submit(rig.request(.read, token: 1, memory: memory), on: second, at: rig.now)
        #expect(submitted.isAccepted)
        let tag = rig.session.table.tag(of: 0)
        let numbers = ResponseNumbers(statSN: 50, expCmdSN: 101, maxCmdSN: rig.maxCmdSN)
        let pdu = PDU(
            header: .dataIn(tag: tag, status: .good, dataSN: 0, bufferOffset: 0, byteCount: 4096, numbers: numbers),
            data: [UInt8](repeating: 9, count: 4096)).encoded()
        pdu.withUnsafeBytes {
            rig.session.received(second, placedByteCount: 0, spill: UnsafeRawBufferPointer(rebasing: $0[..<1000]), at: rig.now)
        }
        #expect(rig.taskManagement(.logicalUnitReset, token: 70))
        let request = try #require(rig.sent().last)
        rig.expCmdSN = 101
        rig.send(.taskManagementResponse(.functionComplete, tag: request.header.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.completions.isEmpty, "the socket may still write into its buffer")
        pdu.withUnsafeBytes {
            rig.session.received(second, placedByteCount: 0, spill: UnsafeRawBufferPointer(rebasing: $0[1000...]), at: rig.now)
        }
        rig.drain()
        #expect(rig.completions.map(\.outcome) == [.aborted(byTaskManagement: 70)])
        #expect(rig.failure == nil)
    }
}
