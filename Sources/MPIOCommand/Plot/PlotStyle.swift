/// The colours of a picture, in daylight and in the dark.
enum PlotStyle {
    /// After Okabe and Ito, whose colours people with the usual kinds of colour blindness can tell apart; with an indigo for
    /// their yellow, which is lost on white, and grey for the rest.
    static let pathColours: [(light: UInt32, dark: UInt32)] = [
        (0x0072B2, 0x4AA3DF), (0xE69F00, 0xF0B429), (0x009E73, 0x2BC49A), (0xCC79A7, 0xE39AC4), (0x56B4E9, 0x8FD3FF),
        (0xD55E00, 0xFF8542), (0x5B4B9A, 0xA79CF0), (0x808890, 0x9AA4AE),
    ]

    private static let lightGround: UInt32 = 0xFFFFFF, darkGround: UInt32 = 0x0D1117

    /// One rule for each class that the drawing uses; `f` and `s` with a number are a path's area and line.
    static var sheet: String {
        var dark = rules(isDark: true)
        dark = "@media (prefers-color-scheme:dark){\n\(dark)}\n"
        let shapes = """
            .grid{stroke-width:1;fill:none}.axis{stroke-width:1;fill:none}
            .line{stroke-width:1.6;fill:none;stroke-linejoin:round;stroke-linecap:round}
            .area{stroke-width:.7;stroke-linejoin:round}
            .event{stroke-width:1.2;fill:none}.change{stroke-dasharray:5 3}.gain{stroke-dasharray:1.5 2.5}
            .title{font-size:18px;font-weight:600}.head{font-size:13px;font-weight:600;stroke-width:5px;stroke-linejoin:round;paint-order:stroke}.small{font-size:12px}
            .end{text-anchor:end}.middle{text-anchor:middle}

            """
        return "\n" + shapes + rules(isDark: false) + dark
    }

    private static func rules(isDark: Bool) -> String {
        let ground = isDark ? darkGround : lightGround
        var text = ".ground{fill:\(hex(ground))}.head{stroke:\(hex(ground))}"
        text += isDark ? ".ink{fill:#e6edf3}.pale{fill:#9aa4ae}.grid{stroke:#262c34}.axis{stroke:#6e7681}" : ".ink{fill:#1f2328}.pale{fill:#59636e}.grid{stroke:#e3e7eb}.axis{stroke:#8c959f}"
        text += isDark ? ".loss{stroke:#ff7b72}.change{stroke:#d2a8ff}.gain{stroke:#56d364}" : ".loss{stroke:#c4161c}.change{stroke:#6f42c1}.gain{stroke:#14691f}"
        text += isDark ? ".down{fill:#ff7b72;fill-opacity:.12}" : ".down{fill:#c4161c;fill-opacity:.07}"
        for (index, colours) in pathColours.enumerated() {
            let colour = isDark ? colours.dark : colours.light
            text += "\n.f\(index){fill:\(hex(mixed(colour, ground, share: isDark ? 0.62 : 0.55)))}.s\(index){stroke:\(hex(colour))}.d\(index){fill:\(hex(colour))}"
        }
        return text + "\n"
    }

    /// `share` of the first colour, the rest of the second.
    private static func mixed(_ a: UInt32, _ b: UInt32, share: Double) -> UInt32 {
        [16, 8, 0].reduce(UInt32(0)) { result, shift in
            let part = Double(a >> UInt32(shift) & 0xFF) * share + Double(b >> UInt32(shift) & 0xFF) * (1 - share)
            return result | UInt32(part.rounded()) << UInt32(shift)
        }
    }

    private static func hex(_ colour: UInt32) -> String {
        let digits = String(colour, radix: 16)
        return "#" + String(repeating: "0", count: 6 - digits.count) + digits
    }
}
