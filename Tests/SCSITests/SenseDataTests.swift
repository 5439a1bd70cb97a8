import SCSI
import Testing

@Suite struct SenseDataTests {
    @Test func fixedFormatIsRead() throws {
        let sense = try #require(SenseData(parsing: hex("f0 00 03 00001234 0a 00000000 1100 00 800007")))
        #expect(sense.key == .mediumError)
        #expect(sense.additional == .unrecoveredReadError)
        #expect(sense.information == 0x1234)
        #expect(sense.specific == .retryCount(7))
        #expect(!sense.isDeferred)
    }

    @Test func descriptorFormatIsRead() throws {
        let bytes = hex("73 05 24 00 000000 14 000a8000 0000000100000002 0206 0000 cf0009 00")
        let sense = try #require(SenseData(parsing: bytes))
        #expect(sense.key == .illegalRequest)
        #expect(sense.isDeferred)
        #expect(sense.information == 0x1_0000_0002)
        #expect(sense.specific == .fieldPointer(FieldPointer(isInCommand: true, byte: 9, bit: 7)))
    }

    @Test func informationWithoutTheValidBitIsNone() {
        #expect(SenseData(parsing: hex("70 00 03 00001234 0a 00000000 1100 00000000"))?.information == nil)
    }

    @Test func bytesPastTheAdditionalLengthAreNotSense() throws {
        let sense = try #require(SenseData(parsing: hex("70 00 06 00000000 04 00000000 2900 00000000")))
        #expect(sense.key == .unitAttention)
        #expect(sense.additional == .none)
    }

    @Test func aCutAnswerSaysWhatItHas() {
        let bytes = hex("70 00 02 00000000 0a 00000000 040a 00000000")
        for count in 0...bytes.count {
            let sense = SenseData(parsing: Array(bytes.prefix(count)))
            if count < 3 {
                #expect(sense == nil)
            } else {
                #expect(sense?.key == .notReady)
                #expect(sense?.additional.code == (count > 12 ? 4 : 0))
                #expect(sense?.additional.qualifier == (count > 13 ? 0x0A : 0))
            }
        }
    }

    @Test func whatIsNoSenseDataIsRefused() {
        #expect(SenseData(parsing: [0x6F, 0, 5]) == nil)
        #expect(SenseData(parsing: [0x74, 0, 5]) == nil)
        #expect(SenseData(parsing: [0x7F, 0, 5]) == nil)
    }

    @Test(arguments: [SenseFormat.fixed, .descriptor])
    func bothFormatsGoRound(format: SenseFormat) {
        var generator = SeededGenerator(seed: 1)
        for key in SenseKey.allCases {
            for _ in 0..<50 {
                let value = UInt16.random(in: 0...UInt16.max, using: &generator)
                let specific: SenseKeySpecific =
                    switch key {
                    case .illegalRequest:
                        .fieldPointer(FieldPointer(isInCommand: value & 1 == 1, byte: value, bit: value & 2 == 2 ? 5 : nil))
                    case .noSense, .notReady: .progress(value)
                    case .hardwareError, .mediumError, .recoveredError: .retryCount(value)
                    default: .other(UInt8(value & 0x7F), value)
                    }
                let sense = SenseData(
                    key: key, additional: AdditionalSense(UInt8(value >> 8), UInt8(value & 0xFF)),
                    information: value & 4 == 4 ? UInt64(value) : nil, isDeferred: value & 8 == 8,
                    specific: value & 16 == 16 ? specific : nil)
                #expect(SenseData(parsing: sense.encode(format: format)) == sense)
            }
        }
    }

    @Test func longInformationNeedsTheDescriptorFormat() {
        let sense = SenseData(key: .mediumError, additional: .unrecoveredReadError, information: 1 << 32)
        #expect(SenseData(parsing: sense.encode(format: .fixed))?.information == nil)
        #expect(SenseData(parsing: sense.encode(format: .descriptor))?.information == 1 << 32)
    }

    @Test func aDescriptorThatRunsOverEndsTheList() {
        // The second descriptor claims 255 bytes.
        let sense = SenseData(parsing: hex("72 03 11 00 000000 10 000a8000 0000000000000007 02ff 0000"))
        #expect(sense?.information == 7)
        #expect(sense?.specific == nil)
    }

    @Test func senseReadsAsASentence() {
        let transition = SenseData(key: .notReady, additional: .accessStateTransition)
        #expect("\(transition)" == "NOT READY, logical unit not accessible, asymmetric access state transition (04/0A)")
        let unknown = SenseData(key: .vendorSpecific, additional: AdditionalSense(0x9F, 0xEE), information: 12)
        #expect("\(unknown)" == "VENDOR SPECIFIC (9F/EE), information 12")
        #expect(Set(SenseKey.allCases.map(\.description)).count == 16)
    }

    @Test func whatTheErrorTableNamesHasAText() {
        let pairs: [(UInt8, UInt8)] = [
            (0x04, 0x0A), (0x04, 0x0B), (0x04, 0x0C), (0x04, 0x03), (0x29, 0x00), (0x29, 0x07), (0x2A, 0x01),
            (0x2A, 0x03), (0x2A, 0x04), (0x2A, 0x05), (0x2A, 0x06), (0x2A, 0x07), (0x2A, 0x09), (0x3F, 0x0E),
            (0x3F, 0x03), (0x2F, 0x00), (0x38, 0x07), (0x27, 0x07), (0x11, 0x00), (0x13, 0x00), (0x14, 0x00),
            (0x67, 0x0A), (0x3E, 0x02), (0x4B, 0x06), (0x20, 0x00), (0x21, 0x00), (0x22, 0x00), (0x24, 0x00),
            (0x26, 0x00), (0x27, 0x00), (0x25, 0x00),
        ]
        for (code, qualifier) in pairs { #expect(AdditionalSense(code, qualifier).name != nil) }
    }
}
