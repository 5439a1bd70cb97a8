import Foundation

/// What `malloc` has handed out in this process, which shows a leak that resident pages hide, and what it holds for it.
public struct HeapUsage: Sendable {
    /// Handed out and not got back, in bytes.
    public let inUseByteCount: Int
    /// Taken from the system: what is in use and what lies free between it. Does not shrink where it is fragmented.
    public let heldByteCount: Int

    /// All arenas and mapped blocks together, now; nil where the C library does not tell.
    public static var current: HeapUsage? {
        guard let text = report, let totals = text.components(separatedBy: "</heap>").last else { return nil }
        func byteCount(_ element: String) -> Int? {
            guard let line = totals.split(separator: "\n").first(where: { $0.hasPrefix("<\(element)") }),
                let value = line.range(of: "size=\"")
            else { return nil }
            return Int(line[value.upperBound...].prefix { $0.isNumber })
        }
        guard let arenas = byteCount("system type=\"current\""), let fast = byteCount("total type=\"fast\""),
            let rest = byteCount("total type=\"rest\""), let mapped = byteCount("total type=\"mmap\"")
        else { return nil }
        return HeapUsage(inUseByteCount: arenas - fast - rest + mapped, heldByteCount: arenas + mapped)
    }

    public static var inUseByteCount: Int? { current?.inUseByteCount }

    /// malloc_info(3). `malloc.h` is in no module, so it is looked up by name.
    private static var report: String? {
        typealias MallocInfo = @convention(c) (Int32, UnsafeMutablePointer<FILE>) -> Int32
        guard let symbol = dlsym(nil, "malloc_info") else { return nil }
        var buffer: UnsafeMutablePointer<CChar>?
        var byteCount = 0
        guard let file = open_memstream(&buffer, &byteCount) else { return nil }
        let result = unsafeBitCast(symbol, to: MallocInfo.self)(0, file)
        fclose(file)
        defer { free(buffer) }
        guard result == 0, let buffer else { return nil }
        return String(cString: buffer)
    }
}
