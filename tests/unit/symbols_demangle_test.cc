// Names as their sources have them. Rust's are of rustc 1.95, checked against c++filt 2.40.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "symbols/demangle.h"

namespace
{

std::string readable(const std::string &name)
{
	char *text = demangle(name.c_str());
	std::string out = text ? text : "";

	free(text);
	return out;
}

// As a reference back: "_" is 0, "0_" is 1.
std::string base62(size_t v)
{
	const char *digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	std::string out = "_";

	if (!v)
		return out;
	v--;
	do
		out.insert(out.begin(), digits[v % 62]);
	while (v /= 62);
	return out;
}

} // namespace

TEST(Demangle, CxxNamesAreWhatTheirSourceHas)
{
	EXPECT_EQ(readable("_ZNSt6vectorIiSaIiEE9push_backERKi"),
		  "std::vector<int, std::allocator<int> >::push_back(int const&)");
	EXPECT_EQ(readable("_Znwm"), "operator new(unsigned long)");
	EXPECT_EQ(readable("_ZN2at6Tensor4loadEv.cold"), "at::Tensor::load() [clone .cold]");
}

TEST(Demangle, OtherNamesAreLeftAlone)
{
	EXPECT_EQ(readable("malloc"), "");
	EXPECT_EQ(readable("_PyEval_EvalFrameDefault"), "");
	EXPECT_EQ(readable("_ZNotMangled"), "");
	EXPECT_EQ(readable("_R"), "");
	EXPECT_EQ(readable("_Return"), "");
	EXPECT_EQ(readable(""), "");
}

TEST(Demangle, RustsFirstSchemeLosesHashAndEscapes)
{
	EXPECT_EQ(readable("_ZN45_$LT$r..Sq$LT$f64$GT$$u20$as$u20$r..Shape$GT$5boxed"
			   "17h895cfa05f0d19b69E"),
		  "<r::Sq<f64> as r::Shape>::boxed");
	EXPECT_EQ(readable("_ZN72_$LT$alloc..boxed..Box$LT$T$C$A$GT$$u20$as$u20$core..ops..drop.."
			   "Drop$GT$4drop17h25ac858c3161d7a0E"),
		  "<alloc::boxed::Box<T,A> as core::ops::drop::Drop>::drop");
	EXPECT_EQ(readable("_ZN5alloc5boxed14box_new_uninit17h027d73fa84b93327E"),
		  "alloc::boxed::box_new_uninit");
}

TEST(Demangle, ACxxNameThatLooksLikeAHashKeepsIt)
{
	EXPECT_EQ(readable("_ZN1a17h895cfa05f0d19b6zE"), "a::h895cfa05f0d19b6z");
	EXPECT_EQ(readable("_ZN1a4hashEv"), "a::hash()");
}

TEST(Demangle, RustsSecondScheme)
{
	EXPECT_EQ(readable("_RNvCs6GmmlP4bgsG_1r3ext"), "r::ext");
	EXPECT_EQ(readable("_RNCNvCs6GmmlP4bgsG_1r5takes0B3_"), "r::takes::{closure#0}");
	EXPECT_EQ(readable("_RINvNtCs6GmmlP4bgsG_1r5inner3runNCNvB4_4mains_0EB4_"),
		  "r::inner::run::<r::main::{closure#1}>");
	EXPECT_EQ(readable("_RNvMNtCs6GmmlP4bgsG_1r5innerINtB2_1CKj7_Kb1_Kc71_E1nB4_"),
		  "<r::inner::C<7, true, 'q'>>::n");
	EXPECT_EQ(readable("_RNvCs6GmmlP4bgsG_1r3ext.llvm.123"), "r::ext");
}

TEST(Demangle, RustTypes)
{
	EXPECT_EQ(readable("_RINvC1c1fTmRSlQeEE"), "c::f::<(u32, &[i32], &mut str)>");
	EXPECT_EQ(readable("_RINvC1c1fTmEE"), "c::f::<(u32,)>");
	EXPECT_EQ(readable("_RINvC1c1fAhj3_E"), "c::f::<[u8; 3]>");
	EXPECT_EQ(readable("_RINvC1c1fFUKCxEoE"), "c::f::<unsafe extern \"C\" fn(i64) -> u128>");
	EXPECT_EQ(readable("_RINvC1c1fFEuE"), "c::f::<fn()>");
	EXPECT_EQ(readable("_RINvC1c1fDNtC1c1Tp4ItemhEL_E"), "c::f::<dyn c::T<Item = u8>>");
	EXPECT_EQ(readable("_RINvC1c1fPhOzKin2a_E"), "c::f::<*const u8, *mut !, -42>");
	EXPECT_EQ(readable("_RNvXC1cNtC1c1SNtC1c1T1m"), "<c::S as c::T>::m");
}

TEST(Demangle, NamesThatBreakTheGrammarAreLeftAlone)
{
	const std::string names[] = {
		"_RNvCs6GmmlP4bgsG_1r3ext",
		"_RINvNtCs6GmmlP4bgsG_1r5inner3runNCNvB4_4mains_0EB4_",
		"_RNvMNtCs6GmmlP4bgsG_1r5innerINtB2_1CKj7_Kb1_Kc71_E1nB4_",
	};

	EXPECT_EQ(readable("_RNvB_1a"), ""); // a reference to itself
	EXPECT_EQ(readable("_RNvB9_1a"), ""); // a reference ahead
	EXPECT_EQ(readable("_RNvC1c99a"), ""); // longer than the text
	EXPECT_EQ(readable("_R" + std::string(100000, 'N')), ""); // too deep
	for (const std::string &name : names)
		for (size_t len = 2; len < name.size() - 1; len++)
			readable(name.substr(0, len)); // never out of bounds, always an end
}

TEST(Demangle, AShortRustNameThatPrintsForEverIsGivenUp)
{
	std::string text = "INvC1c1f";
	size_t last = text.size();

	text += "TmmE";
	for (int i = 0; i < 40; i++) { // each tuple is twice the one before
		std::string ref = "B" + base62(last);

		last = text.size();
		text += "T" + ref + ref + "E";
	}
	EXPECT_EQ(readable("_R" + text + "E"), "");
}
