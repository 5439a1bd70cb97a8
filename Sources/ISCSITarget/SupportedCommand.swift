/// A command of the device server, as REPORT SUPPORTED OPERATION CODES tells it.
struct SupportedCommand {
    var code: UInt8
    var action: Int?
    /// CDB USAGE DATA (SPC-4 clause 6.34.3): the first byte is the code, a bit is set where the field is evaluated.
    var usage: [UInt8]

    private init(_ usage: [UInt8], action: Int? = nil) {
        code = usage[0]
        self.action = action
        self.usage = usage
    }

    private static let two: [UInt8] = [0xFF, 0xFF]
    private static let four: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF]
    private static let eight = four + four

    private static func ten(_ code: UInt8, _ flags: UInt8) -> SupportedCommand { .init([code, flags] + four + [0] + two + [0]) }
    private static func twelve(_ code: UInt8, _ flags: UInt8) -> SupportedCommand { .init([code, flags] + four + four + [0, 0]) }
    private static func sixteen(_ code: UInt8, _ flags: UInt8) -> SupportedCommand {
        .init([code, flags] + eight + four + [0, 0])
    }

    static let all: [SupportedCommand] =
        [
            .init([0x00, 0, 0, 0, 0, 0]),
            .init([0x03, 0x01, 0, 0, 0xFF, 0]),
            .init([0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0]),
            .init([0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0]),
            .init([0x12, 0x01, 0xFF, 0xFF, 0xFF, 0]),
            .init([0x15, 0x11, 0, 0, 0xFF, 0]),
            .init([0x16, 0x11, 0, 0, 0, 0]),
            .init([0x17, 0x11, 0, 0, 0, 0]),
            .init([0x1A, 0x08, 0xFF, 0xFF, 0xFF, 0]),
            .init([0x1B, 0x01, 0, 0, 0xF7, 0]),
            .init([0x1E, 0, 0, 0, 0x03, 0]),
            .init([0x25, 0] + four + [0, 0, 0x01, 0]),
            ten(0x28, 0xF8), ten(0x2A, 0xF8), ten(0x2E, 0xF6), ten(0x2F, 0xF6), ten(0x34, 0x02), ten(0x35, 0x06),
            .init([0x37, 0, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0]),
            ten(0x41, 0xE0),
            .init([0x42, 0x01, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]),
            .init([0x55, 0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]),
            .init([0x56, 0x11, 0, 0, 0, 0, 0, 0, 0, 0]),
            .init([0x57, 0x11, 0, 0, 0, 0, 0, 0, 0, 0]),
            .init([0x5A, 0x08, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0]),
        ] + (0...3).map { .init([0x5E, UInt8($0), 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], action: $0) }
        + (0...6).map { .init([0x5F, UInt8($0), 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0], action: $0) }
        + [
            sixteen(0x88, 0xF8),
            .init([0x89, 0xF8] + eight + [0, 0, 0, 0xFF, 0, 0]),
            sixteen(0x8A, 0xF8), sixteen(0x8B, 0xF8), sixteen(0x8E, 0xF6), sixteen(0x8F, 0xF6), sixteen(0x90, 0x02),
            sixteen(0x91, 0x06), sixteen(0x93, 0xF9),
            .init([0x9C, 0xF8] + eight + [0, 0, 0xFF, 0xFF, 0, 0]),
            .init([0x9E, 0x10] + [UInt8](repeating: 0, count: 8) + four + [0, 0], action: 0x10),
            .init([0x9E, 0x12] + eight + four + [0, 0], action: 0x12),
            .init([0xA0, 0, 0xFF, 0, 0, 0] + four + [0, 0]),
            .init([0xA3, 0x2A, 0, 0, 0, 0] + four + [0, 0], action: 0x0A),
            .init([0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF] + four + [0, 0], action: 0x0C),
            .init([0xA4, 0x0A, 0, 0, 0, 0] + four + [0, 0], action: 0x0A),
            twelve(0xA8, 0xF8), twelve(0xAA, 0xF8), twelve(0xAE, 0xF6), twelve(0xAF, 0xF6),
            .init([0xB7, 0x1F, 0, 0, 0, 0] + four + [0, 0]),
        ]
}
