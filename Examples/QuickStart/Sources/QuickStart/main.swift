import MPIO

let manager = try await PathManager(configuration: Configuration(contentsOf: "mpio.yaml"))
let disk = try await manager.open("vm-store")

let events = disk.events
let watching = Task { for await event in events { print("event:", event) } }

let buffer = IOBuffer(byteCount: 1 << 20)  // aligned, reusable, no copy to the wire
for index in 0..<buffer.byteCount { buffer[index] = UInt8(truncatingIfNeeded: index) }
try await disk.write(buffer, at: 1 << 20, options: .forceUnitAccess)
try await disk.read(into: buffer, range: 0..<4096, at: 1 << 20)  // a part of the buffer
try await disk.writeZeroes(at: 2 << 20, byteCount: 1 << 20)
try await disk.flush()

try await disk.setPolicy(.leastQueueDepth)
for path in try await disk.paths { print(path.id, path.state.rawValue, path.requests) }

do {
    try await disk.write(buffer, at: disk.capacityByteCount)
} catch DiskError.outOfRange {
    print("nothing was sent")
}
try await manager.shutdown()
await watching.value
