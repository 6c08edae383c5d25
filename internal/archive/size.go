package archive

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// FormatBytes writes a size in decimal units, as media are sold.
func FormatBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	for v >= 999.95 && unit < 5 { // what would be written as 1000.0
		v /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %cB", v, " kMGTP"[unit])
}

// Medium is a kind of medium with a size of its own.
type Medium struct {
	Name string
	// Size is the most bytes that one file on it may have, Overhead what its file system
	// takes of that where the file is alone on the medium. Both in bytes.
	Size, Overhead int64
	// Whole tells media that are filled from those that merely bound the size of a file.
	Whole bool
}

// Media are the sizes that have names.
var Media = []Medium{
	// DVD+R, the smaller of the two: 2,295,104 sectors.
	{Name: "dvd", Size: 2_295_104 * 2048, Overhead: 4 << 20, Whole: true},
	{Name: "dvd-dl", Size: 4_173_824 * 2048, Overhead: 4 << 20, Whole: true},
	{Name: "bd25", Size: 12_219_392 * 2048, Overhead: 16 << 20, Whole: true},
	{Name: "bd50", Size: 24_438_784 * 2048, Overhead: 16 << 20, Whole: true},
	// A file on FAT32 is one byte short of 4 GiB; whole MiB are kinder to everything else.
	{Name: "fat32", Size: 4<<30 - 1, Overhead: 1<<20 - 1},
}

var units = []struct {
	suffix string
	factor float64
}{
	{"KIB", 1 << 10},
	{"MIB", 1 << 20},
	{"GIB", 1 << 30},
	{"TIB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"K", 1 << 10},
	{"M", 1 << 20},
	{"G", 1 << 30},
	{"T", 1 << 40},
	{"B", 1},
}

// ParseSize reads the size of a volume, in bytes: a number with a unit (4.7GB, 700MiB; K, M, G
// and T are powers of 1024) or the name of a medium, from which beside, the size of what else
// is to lie on it, is taken away. Errors for what is no size, or less than MinVolume.
func ParseSize(text string, beside int64) (int64, error) {
	for _, m := range Media {
		if strings.EqualFold(text, m.Name) {
			n := m.Size - m.Overhead
			if m.Whole {
				n -= beside
			}
			n &^= 1<<20 - 1
			if n < MinVolume {
				return 0, fmt.Errorf("%s has no room left beside %s", m.Name, FormatBytes(beside))
			}
			return n, nil
		}
	}
	number, factor := strings.ToUpper(strings.ReplaceAll(text, " ", "")), 1.0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = rest, u.factor
			break
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(v) || v < 0 || strings.ContainsAny(number, "EXP_I") {
		return 0, fmt.Errorf("size %q is neither a number with a unit, such as 4.7GB or 700MiB, nor one of %s", text, mediaNames())
	}
	if v*factor > MaxFile {
		return 0, fmt.Errorf("size %q is more than %s", text, FormatBytes(MaxFile))
	}
	// A number of bytes, as it was meant: 4.1GB is not quite 4.1 times 1e9.
	if n := int64(math.Round(v * factor)); n >= MinVolume {
		return n, nil
	}
	return 0, fmt.Errorf("size %q is less than the least, 1 MiB", text)
}

func mediaNames() string {
	names := make([]string, 0, len(Media))
	for _, m := range Media {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}
