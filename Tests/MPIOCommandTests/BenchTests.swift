import Foundation
import MPIO
import Testing

@testable import MPIOCommand

@Suite struct BenchTests {
    @Test(arguments: [(7, 7), (8, 100), (32, 1001)] as [(Int, UInt64)], [true, false])
    func slotsNeverShareABlockNorLeaveTheDisk(_ shape: (depth: Int, blocks: UInt64), _ isSequential: Bool) {
        let plan = BenchPlan(
            isWrite: true, isVerified: true, blockSize: 4096, depth: shape.depth, isSequential: isSequential, blockCount: shape.blocks)
        var owner: [UInt64: Int] = [:]
        for slot in 0..<shape.depth {
            for number in 0..<2000 as Range<UInt64> {
                let block = plan.block(slot: slot, number: number)
                #expect(block < shape.blocks)
                #expect(owner[block, default: slot] == slot)
                owner[block] = slot
            }
        }
        if isSequential { #expect(owner.count == Int(shape.blocks)) }
    }

    @Test func aBlockIsKnownByItsAddressAndGeneration() {
        let buffer = IOBuffer(byteCount: 4096)
        BenchPattern.fill(buffer.bytes, block: 7, generation: 3)
        let bytes = UnsafeRawBufferPointer(buffer.bytes)
        #expect(BenchPattern.matches(bytes, block: 7, generation: 3))
        #expect(!BenchPattern.matches(bytes, block: 8, generation: 3))
        #expect(!BenchPattern.matches(bytes, block: 7, generation: 2))
        buffer[4095] ^= 1
        #expect(!BenchPattern.matches(bytes, block: 7, generation: 3))
    }

    @Test func pathsAreCountedForTheRunOnly() {
        var before = PathSnapshot(id: "p", transport: .iscsi, portal: "p", state: .activeOptimized)
        before.requests = 10
        var after = before
        after.requests = 25
        let lun = { (path: PathSnapshot) in LUNSnapshot(name: "a", policy: "round-robin", state: .optimal, paths: [path]) }
        #expect(BenchResult.difference(before: lun(before), after: lun(after)).map(\.requests) == [15])
        #expect(BenchResult.difference(before: nil, after: lun(after)).map(\.requests) == [25])
    }

    @Test func aNameOfThePolicyFileIsALUNAndAPathIsAFile() throws {
        let policy = try Configuration(yaml: goodPolicy)
        #expect(CopyCommand.Place("vm-store", policy) == .lun("vm-store"))
        #expect(CopyCommand.Place("./vm-store", policy) == .file("./vm-store"))
        #expect(CopyCommand.Place("image.raw", policy) == .file("image.raw"))
    }
}
